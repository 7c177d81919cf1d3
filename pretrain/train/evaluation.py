"""Evaluation: which splits a run evaluates, when, and the loss of a split."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pretrain import trace
from pretrain.data.batch_schedule import BatchConfig
from pretrain.data.samples import EvaluationOrder, MicroBatch, MicroBatches, Samples
from pretrain.data.splits import EvaluationSplits
from pretrain.parallel import ForwardBackward, ParallelContext
from pretrain.trace import SpanTimeout

from .masked_lm import MaskedLMObjective
from .metrics_logger import EvaluationLossRecord

_MOST_WORKERS = 2  # data loader processes per split


@dataclass(frozen=True)
class EvaluationConfig:
    """The evaluations of a run.

    Attributes:
        interval: iterations between evaluations of the validation split.
        last: the last iteration, after which the validation and the test split are evaluated.
        rows: rows of each split to evaluate; None: all, 0: no evaluation.
    """

    interval: int
    last: int
    rows: int | None


@dataclass(frozen=True)
class EvaluatedSplit:
    """A split to evaluate; iterating over its micro-batches yields the same ones every time."""

    split: str
    micro_batches: MicroBatches


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run, on this rank.

    Attributes:
        config: when to evaluate.
        valid, test: the splits; None skips one.
    """

    config: EvaluationConfig
    valid: EvaluatedSplit | None = None
    test: EvaluatedSplit | None = None

    @property
    def all(self) -> list[EvaluatedSplit]:
        """The evaluations after the last iteration."""
        return [evaluation for evaluation in (self.valid, self.test) if evaluation is not None]

    def due(self, iteration: int) -> list[EvaluatedSplit]:
        """The evaluations to do after an iteration."""
        if iteration == self.config.last:
            return self.all
        return [self.valid] if self.valid is not None and iteration % self.config.interval == 0 else []


def open_evaluations(
    config: EvaluationConfig, splits: EvaluationSplits, batch: BatchConfig, workers: int, context: ParallelContext
) -> Evaluations:
    """Open the data loaders of the evaluations.

    Args:
        config: what to evaluate, and when.
        splits: the samples.
        batch: batch sizes.
        workers: maximum number of data loader processes per split.
        context: the parallel layout.
    """

    def open_split(split: str, samples: Samples | None) -> EvaluatedSplit | None:
        if samples is None or config.rows == 0:
            return None
        rows = len(samples) if config.rows is None else min(config.rows, len(samples))
        order = EvaluationOrder(rows, batch.micro_batch, context.data_rank, context.dims.data)
        pin_memory = context.device.type == "cuda"
        return EvaluatedSplit(split, MicroBatches(samples, order, min(workers, _MOST_WORKERS), pin_memory))

    return Evaluations(config, open_split("valid", splits.valid), open_split("test", splits.test))


class SizedMicroBatches(Protocol):
    """The micro-batches of a rank, whose number is known."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[MicroBatch]: ...


class Evaluator:
    """Computes the loss of a split. All ranks call it in the same order.

    Args:
        objective: this rank's part of the model, on its device.
        forward_backward: runs micro-batches through it.
        context: the parallel layout.
    """

    def __init__(
        self, objective: MaskedLMObjective, forward_backward: ForwardBackward[MicroBatch], context: ParallelContext
    ) -> None:
        self._objective = objective
        self.model = objective.model
        self._forward_backward = forward_backward
        self._context = context
        self._evaluated: set[str] = set()

    @torch.no_grad()
    def evaluate(self, micro_batches: SizedMicroBatches, iteration: int, split: str) -> EvaluationLossRecord:
        """The mean loss over all predicted positions of a split, all ranks' rows together.

        Args:
            micro_batches: this rank's micro-batches of the split.
            iteration: iterations completed, for the record.
            split: name of the split.
        """
        began = time.perf_counter()
        self.model.eval()
        # the first evaluation in a process starts data loader workers, and may compile
        first = split not in self._evaluated
        self._evaluated.add(split)
        counts = torch.zeros(2, dtype=torch.float64)  # predictions, rows
        with trace.span(f"evaluation on {split}", SpanTimeout.BUSY if first else None):
            total = self._forward_backward.evaluate(self._counted(micro_batches, counts))
        with trace.span(f"all-reduce loss on {split}"):
            loss = self._context.all_reduce_losses(total)
            sums = self._context.all_reduce_over_data(counts.to(self._context.device))
        self.model.train()
        loss_sum, predictions, rows = torch.cat([loss.unsqueeze(0), sums]).tolist()
        seconds = time.perf_counter() - began
        mean = loss_sum / max(predictions, 1)
        return EvaluationLossRecord(iteration, split, mean, int(predictions), int(rows), seconds)

    def _counted(self, micro_batches: SizedMicroBatches, counts: Tensor) -> Iterator[MicroBatch]:
        """The prepared micro-batches; adds their predictions and rows to ``counts``."""
        for number, micro_batch in enumerate(self._padded_to_longest_rank(micro_batches)):
            if number == self._context.dims.pipeline:  # a pipeline requests this many before it computes the first
                trace.warmed_up()
            trace.mark(f"micro-batch {number + 1}")
            counts.add_(torch.tensor([micro_batch.predictions, micro_batch.rows]))
            yield self._objective.prepare(micro_batch)

    def _padded_to_longest_rank(self, micro_batches: SizedMicroBatches) -> Iterator[MicroBatch]:
        """The micro-batches, and empty ones if another rank has more: with FSDP, all ranks all-gather together."""
        # gathered before the first micro-batch, so that it can't be mixed up with FSDP's all-gathers
        longest = max(self._context.gather(len(micro_batches))) if self._context.dims.fsdp_enabled else 0
        yield from micro_batches
        for _ in range(longest - len(micro_batches)):
            yield MicroBatch.empty()
