"""Running a step's micro-batches through this rank's part of the model: all of it, or one stage of a pipeline.

The pipeline is torch.distributed.pipelining's, with its 1F1B (Narayanan et al. 2019) or GPipe (Huang et al. 2019)
schedule. What stages send each other has one shape for the whole run: micro-batches are padded to it before. Only the
residual stream is sent; everything else about a micro-batch is read by every stage for itself, under its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

from pretrain.trace import Operations

from .context import ParallelContext
from .fsdp import apply_fsdp, finalize_shards, no_gradient_sync
from .gradient_buckets import GradientBuckets
from .pipeline_stage import InstrumentedStage

PIPELINE_SCHEDULES = ("1f1b", "gpipe")

Batch = TypeVar("Batch")
AnyBatch = TypeVar("AnyBatch", contravariant=True)
Prepare = Callable[[int], None]  # called with a micro-batch's number before its forward pass


class ForwardBackward(Protocol[AnyBatch]):
    """How micro-batches go through the model."""

    def train(
        self, batches: Sequence[AnyBatch], weight: Tensor, gradients: GradientBuckets, prepare: Prepare
    ) -> list[Tensor]:
        """Forward and backward; afterwards ``gradients`` are those of the sum of all losses times ``weight``.

        Returns:
            The losses that this rank computed, one a micro-batch; none but on the last stage.
        """

    def evaluate(self, batches: Iterable[AnyBatch]) -> Tensor:
        """Sum of the losses that this rank computed, float64; without gradients."""


def sum_of(losses: Sequence[Tensor], device: torch.device) -> Tensor:
    """Their sum, float64; 0 of none."""
    return torch.stack(list(losses)).double().sum() if losses else torch.zeros((), dtype=torch.float64, device=device)


class NoPipelining(Generic[Batch]):
    """Micro-batches one after another.

    Args:
        part: micro-batch -> its summed loss.
        device: where it computes.
        operations: is told what is being done.
    """

    def __init__(self, part: nn.Module, device: torch.device, operations: Operations) -> None:
        self._part, self._device, self._operations = part, device, operations

    def train(
        self, batches: Sequence[Batch], weight: Tensor, gradients: GradientBuckets, prepare: Prepare
    ) -> list[Tensor]:
        losses = []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            self._operations.at(f"forward and backward pass of micro-batch {number + 1}")
            prepare(number)
            with no_gradient_sync(self._part, not last):
                loss = self._part(batch)
                with gradients.summing() if last else nullcontext():
                    (loss * weight).backward()
            losses.append(loss.detach())
        return losses

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for batch in batches:
            total += self._part(batch)
        return total


class _NumberedPart(nn.Module):
    """The part of the model as torch's stage calls it: with a micro-batch's number and the residual stream so far."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.batches: Sequence[Any] = ()
        self.prepare: Prepare = lambda number: None
        self.losses: list[Tensor] = []

    def forward(self, *stream: Tensor, number: Tensor) -> Tensor:
        self.prepare(int(number))
        output = self.part(self.batches[int(number)], *stream)
        if not output.dim():
            self.losses.append(output.detach())
        return output


class Pipeline(Generic[Batch]):
    """Micro-batches through the stages.

    Args:
        part: (micro-batch[, residual stream, unless on the first stage]) -> residual stream, or the last stage's loss.
        processes: the layout.
        shape: of the residual stream that one stage hands to the next on each tensor rank.
        schedule: 1f1b or gpipe. With fewer micro-batches than stages both are the same, and gpipe is used.
        operations: is told what is being done.
    """

    def __init__(
        self,
        part: _NumberedPart,
        processes: ParallelContext,
        shape: tuple[int, ...],
        schedule: str,
        operations: Operations,
    ) -> None:
        self._part, self._processes, self._shape, self._schedule = part, processes, shape, schedule
        self._operations = operations
        self._schedules: dict[tuple[int, bool], PipelineScheduleSingle] = {}
        self._weight = torch.ones(())

    def train(
        self, batches: Sequence[Batch], weight: Tensor, gradients: GradientBuckets, prepare: Prepare
    ) -> list[Tensor]:
        self._part.prepare, self._weight = prepare, weight
        self._operations.at("pipeline")
        losses = self._run(batches, training=True)
        gradients.sum()
        return losses

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> Tensor:
        self._part.prepare, self._weight = lambda number: None, torch.ones(())
        total = torch.zeros((), dtype=torch.float64, device=self._processes.device)
        iterator = iter(batches)
        while group := list(islice(iterator, self._processes.dims.pipeline)):
            total += sum_of(self._run(group, training=False), self._processes.device)
        return total

    def _run(self, batches: Sequence[Batch], training: bool) -> list[Tensor]:
        self._part.batches, self._part.losses = batches, []
        schedule = self._schedule_of(len(batches), training)
        numbers = torch.arange(len(batches))  # on the CPU: read there
        run = schedule.step if training else schedule.eval
        target = numbers if self._processes.is_last_stage else None
        run(target=target, return_outputs=False, number=numbers)
        return self._part.losses

    def _schedule_of(self, number: int, training: bool) -> PipelineScheduleSingle:
        if (number, training) not in self._schedules:
            pipelined = self._schedule == "1f1b" and number >= self._processes.dims.pipeline
            kind = Schedule1F1B if pipelined else ScheduleGPipe
            self._schedules[number, training] = kind(self._stage(), number, self._loss, scale_grads=False)
        return self._schedules[number, training]

    def _stage(self) -> InstrumentedStage:
        """A stage whose inputs and outputs are known beforehand, so that no rank tries the model out to find them."""
        processes = self._processes
        stream = torch.empty(self._shape, device=processes.device, requires_grad=True)
        return InstrumentedStage(
            self._operations,
            self._part,
            processes.stage,
            processes.dims.pipeline,
            processes.device,
            input_args=() if processes.is_first_stage else (stream,),
            output_args=(torch.empty((), device=processes.device),) if processes.is_last_stage else (stream,),
            group=processes.pipeline_group,
        )

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        return output * self._weight


def make_forward_backward(
    part: nn.Module,
    processes: ParallelContext,
    shape: tuple[int, ...],
    schedule: str = PIPELINE_SCHEDULES[0],
    operations: Operations | None = None,
) -> NoPipelining[Any] | Pipeline[Any]:
    """How this layout runs micro-batches; shards what of the part isn't sharded yet, so that parameters are final.

    Args:
        part: see :class:`NoPipelining` and :class:`Pipeline`.
        processes: the layout.
        shape: see :class:`Pipeline`.
        schedule: see :class:`Pipeline`.
        operations: is told what is being done.
    """
    operations = operations or Operations()
    module = part if processes.dims.pipeline == 1 else _NumberedPart(part)
    apply_fsdp(module, processes)
    finalize_shards(module)
    if isinstance(module, _NumberedPart):
        return Pipeline(module, processes, shape, schedule, operations)
    return NoPipelining(module, processes.device, operations)
