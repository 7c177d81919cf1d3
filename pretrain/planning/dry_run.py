"""Dry run: print the plan of a run and check that it fits into memory, without starting it.

The plan has the parameters, the parallel layout, the memory per rank, the tokens per step and the steps per epoch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pretrain.data.batch_schedule import BatchConfig
from pretrain.data.blending import describe
from pretrain.data.samples import Samples
from pretrain.optim.optimizer import OptimizerConfig
from pretrain.parallel import ParallelDims
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError

from .flops import flops_per_token
from .memory_estimate import RankMemory, StepShape, rank_memory

_GIB = 1 << 30


@dataclass(frozen=True)
class DryRunConfig:
    """Settings of a dry run.

    Attributes:
        device_memory_gib: device memory per rank in GiB; None: detect it on this machine.
    """

    device_memory_gib: float | None = None

    def __post_init__(self) -> None:
        if self.device_memory_gib is not None and not self.device_memory_gib > 0:
            raise ConfigError(f"--device-memory-gib must be above 0, not {self.device_memory_gib}")


@dataclass(frozen=True)
class Plan:
    """Dry-run plan.

    Attributes:
        model: sizes of the model.
        dims: parallel layout.
        batch: batch sizes.
        iterations: number of optimizer steps of the run.
        seq_length: tokens per row.
        memory: estimated memory of the rank that needs most.
        checkpoint_activations: whether activations are recomputed in the backward pass.
        tokens_per_row: mean number of tokens per row in the first epoch, without padding.
        flops_per_token: see :func:`pretrain.planning.flops.flops_per_token`.
        rows: number of rows after which every protein has been seen.
        corpora: one line of text per corpus.
    """

    model: ProteinBertConfig
    dims: ParallelDims
    batch: BatchConfig
    iterations: int
    seq_length: int
    memory: RankMemory
    checkpoint_activations: bool
    tokens_per_row: float
    flops_per_token: float
    rows: int
    corpora: tuple[str, ...]

    def lines(self, available: float, source: str) -> list[str]:
        """The lines to print.

        Args:
            available: memory per rank in bytes.
            source: how ``available`` is known, for the text.
        """
        memory, step = self.memory, self.batch.global_batch
        parts = (
            ("weights", memory.weights),
            ("gradients", memory.gradients),
            ("optimizer", memory.optimizer),
            ("gathered shards", memory.gathered),
            ("low-precision weights", memory.low_precision),
            ("activations", memory.checkpointed if self.checkpoint_activations else memory.activations),
        )
        words = " + ".join(f"{name} {_gib(size)}" for name, size in parts if size)
        tokens, filled = step * self.tokens_per_row, self.tokens_per_row / self.seq_length
        return [
            *self.corpora,
            f"parameters: {memory.model_parameters:,}; on the largest rank: {memory.parameters:,}",
            f"layout: {self.dims}",
            f"memory per rank: {words} = {_gib(memory.total(self.checkpoint_activations))} (estimate) of "
            f"{_gib(available)} ({source})",
            f"activations: {_gib(memory.activations)} kept, {_gib(memory.checkpointed)} with --checkpoint-activations",
            f"step: {step} rows of {self.seq_length}, about {tokens:,.0f} tokens ({filled:.1%} of positions), "
            f"{tokens * self.flops_per_token / 1e12:,.2f} TFLOP, "
            f"{self.batch.micro_batches(self.dims.data)} micro-batches per rank",
            f"epoch: {self.rows:,} rows, {self.rows / step:,.1f} steps; run: {self.iterations:,} steps, "
            f"{self.batch.consumed_samples(self.iterations) / self.rows:,.2f} epochs",
        ]

    def check(self, available: float) -> None:
        """Check that the run fits into memory.

        Args:
            available: memory per rank in bytes.

        Raises:
            ConfigError: if it does not fit; the message suggests flags that reduce the memory.
        """
        needed = self.memory.total(self.checkpoint_activations)
        if needed <= available:
            return
        advice = ["a larger --tensor-model-parallel-size"]
        if self.memory.total(True) <= available:
            advice = ["--checkpoint-activations"]
        elif self.batch.micro_batch > 1:
            advice.append("a smaller --micro-batch-size")
        raise ConfigError(
            f"the run does not fit: a rank needs about {_gib(needed)}, its device has {_gib(available)}; "
            f"use {' or '.join(advice)}"
        )


def make_plan(
    model: ProteinBertConfig,
    dims: ParallelDims,
    batch: BatchConfig,
    iterations: int,
    samples: Samples,
    precision: str,
    optimizer: OptimizerConfig,
    checkpoint_activations: bool,
    fused_attention: bool,
) -> Plan:
    """Plan a run. Reads the lengths of the proteins and allocates no model; see :class:`StepShape`."""
    config = samples.parts[0].config
    step = StepShape(
        tokens=batch.micro_batch * config.seq_length,
        attended_length=samples.attended_length,
        mask_prob=config.mask_prob,
        precision=precision,
        fused_attention=fused_attention or (model.attention_probs_dropout_prob == 0 and precision == "fp32"),
        micro_batches=batch.micro_batches(dims.data),
    )
    return Plan(
        model=model,
        dims=dims,
        batch=batch,
        iterations=iterations,
        seq_length=config.seq_length,
        memory=rank_memory(model, dims, step, optimizer),
        checkpoint_activations=checkpoint_activations,
        tokens_per_row=_tokens_per_row(samples),
        flops_per_token=flops_per_token(model, samples.attended_length, config.mask_prob),
        rows=len(samples),
        corpora=tuple(describe(samples)),
    )


def is_for_gpus(config: DryRunConfig) -> bool:
    """Whether the run is planned for GPUs: this machine has GPUs, or the memory of a device was given."""
    return torch.cuda.is_available() or config.device_memory_gib is not None


def available_memory(config: DryRunConfig, processes_here: int) -> tuple[float, str]:
    """Memory per rank in bytes, and how it is known. On a CPU, all processes of the machine share its memory."""
    if config.device_memory_gib is not None:
        return config.device_memory_gib * _GIB, "stated"
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory), "detected"
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return everything / processes_here, f"detected; {processes_here} processes share this machine's memory"


def _tokens_per_row(samples: Samples) -> float:
    """Mean number of tokens per row over all corpora."""
    parts = samples.parts
    tokens: Sequence[float] = [part.planner.tokens for part in parts]
    return sum(tokens) / sum(len(part) for part in parts)


def _gib(size: float) -> str:
    return f"{size / _GIB:,.2f} GiB" if size >= 0.1 * _GIB else f"{size / (1 << 20):,.1f} MiB"
