"""Forward and backward passes of a step's micro-batches, without or with pipeline parallelism.

Pipelines are those of torch.distributed.pipelining, with the 1F1B (Narayanan et al. 2019) or GPipe (Huang et al. 2019)
schedule. Tensors between stages have one shape for the entire run, to which micro-batches are padded. Only the residual
stream is sent; every stage reads the rest of a micro-batch from its own data loader, by the micro-batch's index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pretrain import trace
from pretrain.choices import PIPELINE_SCHEDULES

from .context import ParallelContext
from .fsdp import apply_fsdp, finalize_shards, no_gradient_sync
from .gradient_buckets import GradientBuckets

if TYPE_CHECKING:
    from torch.distributed.pipelining.schedules import PipelineScheduleSingle

    from .pipeline_stage import InstrumentedStage

Batch = TypeVar("Batch")
AnyBatch = TypeVar("AnyBatch", contravariant=True)
Prepare = Callable[[int], None]  # called with the index of a micro-batch before its forward pass


class ForwardBackward(Protocol[AnyBatch]):
    """Runs the micro-batches of a step through the model (cf. Megatron-LM's ``get_forward_backward_func``)."""

    def train(
        self, batches: Sequence[AnyBatch], weight: Tensor, gradients: GradientBuckets, prepare: Prepare
    ) -> list[Tensor]:
        """Run forward and backward passes; ``gradients`` become those of ``weight`` times the sum of all losses.

        Returns:
            The loss of each micro-batch on the last pipeline stage; empty on other stages.
        """

    def evaluate(self, batches: Iterable[AnyBatch]) -> Tensor:
        """The sum of the losses that this rank computes without gradients, float64."""


def sum_of(losses: Sequence[Tensor], device: torch.device) -> Tensor:
    """The sum of losses, float64; 0 if there are none."""
    return torch.stack(list(losses)).double().sum() if losses else torch.zeros((), dtype=torch.float64, device=device)


class NoPipelining(Generic[Batch]):
    """Runs micro-batches one after another.

    Args:
        part: maps a micro-batch to its summed loss.
        device: device of the model.
    """

    def __init__(self, part: nn.Module, device: torch.device) -> None:
        self._part, self._device = part, device

    def train(
        self, batches: Sequence[Batch], weight: Tensor, gradients: GradientBuckets, prepare: Prepare
    ) -> list[Tensor]:
        losses = []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with trace.span(f"forward and backward pass of micro-batch {number + 1}"):
                prepare(number)
                with no_gradient_sync(self._part, not last):
                    loss = self._part(batch)
                    with gradients.all_reduce_after_backward() if last else nullcontext():
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
    """Adapts a part of the model to torch's stages, which pass the residual stream and the index of a micro-batch."""

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
    """Runs micro-batches through the pipeline stages.

    Args:
        part: maps (micro-batch[, residual stream, unless on the first stage]) to the residual stream, or on the last
            stage to the loss.
        context: the parallel layout.
        shape: shape of the residual stream between stages on each tensor-parallel rank.
        schedule: 1f1b or gpipe; with fewer micro-batches than stages both are the same, and gpipe is used.
    """

    def __init__(
        self,
        part: _NumberedPart,
        context: ParallelContext,
        shape: tuple[int, ...],
        schedule: str,
    ) -> None:
        self._part, self._context, self._shape, self._schedule = part, context, shape, schedule
        self._schedules: dict[tuple[int, bool], PipelineScheduleSingle] = {}
        self._weight = torch.ones(())

    def train(
        self, batches: Sequence[Batch], weight: Tensor, gradients: GradientBuckets, prepare: Prepare
    ) -> list[Tensor]:
        self._part.prepare, self._weight = prepare, weight
        with trace.span("pipeline"):
            losses = self._run(batches, training=True)
        gradients.all_reduce()
        return losses

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> Tensor:
        self._part.prepare, self._weight = lambda number: None, torch.ones(())
        total = torch.zeros((), dtype=torch.float64, device=self._context.device)
        iterator = iter(batches)
        while group := list(islice(iterator, self._context.dims.pipeline)):
            total += sum_of(self._run(group, training=False), self._context.device)
        return total

    def _run(self, batches: Sequence[Batch], training: bool) -> list[Tensor]:
        self._part.batches, self._part.losses = batches, []
        schedule = self._schedule_of(len(batches), training)
        numbers = torch.arange(len(batches))  # on the CPU, where they are read
        run = schedule.step if training else schedule.eval
        target = numbers if self._context.is_last_stage else None
        run(target=target, return_outputs=False, number=numbers)
        return self._part.losses

    def _schedule_of(self, number: int, training: bool) -> PipelineScheduleSingle:
        # With torch.distributed.pipelining comes torch._dynamo, whose import takes longer than that of torch.
        from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe

        if (number, training) not in self._schedules:
            pipelined = self._schedule == "1f1b" and number >= self._context.dims.pipeline
            kind = Schedule1F1B if pipelined else ScheduleGPipe
            self._schedules[number, training] = kind(self._stage(), number, self._loss, scale_grads=False)
        return self._schedules[number, training]

    def _stage(self) -> InstrumentedStage:
        """A stage with given shapes of inputs and outputs, so that torch doesn't run the model to infer them."""
        from .pipeline_stage import InstrumentedStage

        context = self._context
        stream = torch.empty(self._shape, device=context.device, requires_grad=True)
        return InstrumentedStage(
            self._part,
            context.stage,
            context.dims.pipeline,
            context.device,
            input_args=() if context.is_first_stage else (stream,),
            output_args=(torch.empty((), device=context.device),) if context.is_last_stage else (stream,),
            group=context.pipeline_group,
        )

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        return output * self._weight


def make_forward_backward(
    part: nn.Module,
    context: ParallelContext,
    shape: tuple[int, ...],
    schedule: str = PIPELINE_SCHEDULES[0],
) -> NoPipelining[Any] | Pipeline[Any]:
    """Choose how the parallel layout runs micro-batches, and apply FSDP to what is not sharded yet.

    Args:
        part: see :class:`NoPipelining` and :class:`Pipeline`.
        context: the parallel layout.
        shape: see :class:`Pipeline`.
        schedule: see :class:`Pipeline`.
    """
    module = part if context.dims.pipeline == 1 else _NumberedPart(part)
    apply_fsdp(module, context)
    finalize_shards(module)
    if isinstance(module, _NumberedPart):
        return Pipeline(module, context, shape, schedule)
    return NoPipelining(module, context.device)
