"""One step of training, and one evaluation. Everything they work with is made beforehand and handed in."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pretrain.data.batch_schedule import BatchConfig
from pretrain.data.samples import MicroBatch, MicroBatches
from pretrain.optim.lr_schedule import NOTHING_SKIPPED, SkippedCounts
from pretrain.optim.optimizer import Optimizer
from pretrain.optim.precision import LossScale, PrecisionConfig
from pretrain.parallel import ForwardBackward, ParallelContext, sum_of
from pretrain.trace import Allowance, Operations

from .masked_lm import MaskedLMObjective
from .metrics_logger import EvaluationLossRecord

_STREAM_DROPOUT = 4  # pretrain.data uses 1 to 3


@dataclass(frozen=True)
class StepResult:
    """One optimizer step on the global batch.

    Attributes:
        loss, grad_norm, tokens, predictions: of all ranks together.
        skipped: loss or gradient were not finite, and the weights stayed.
        loss_scale: that it was computed with.
        suspects: of a skipped step, this rank's micro-batches with a loss that is not finite; all when none is.
        searching: skipped because the loss scale is still too high, which is how it is found.
    """

    loss: float
    grad_norm: float
    tokens: int
    predictions: int
    skipped: bool
    loss_scale: float
    suspects: tuple[int, ...] = ()
    searching: bool = False


class Trainer:
    """Computes steps and evaluations of one model on this rank's share of the rows.

    Args:
        objective: this rank's part of the model, on its device.
        execution: how micro-batches go through it.
        optimizer: of its parameters; holds the gradients.
        processes: the layout.
        precision: loss scaling.
        batch: rows of a step.
        seed: of dropout.
        operations: is told what is being done.
    """

    def __init__(
        self,
        objective: MaskedLMObjective,
        execution: ForwardBackward[MicroBatch],
        optimizer: Optimizer,
        processes: ParallelContext,
        precision: PrecisionConfig,
        batch: BatchConfig,
        seed: int,
        operations: Operations | None = None,
    ) -> None:
        self.objective = objective
        self.model = objective.model
        self.execution = execution
        self.optimizer = optimizer
        self.processes = processes
        self.batch = batch
        self.seed = seed
        self.operations = operations or Operations()
        self.loss_scale = LossScale(precision)
        self._evaluated: set[str] = set()

    def step(
        self, iteration: int, micro_batches: Sequence[MicroBatch], left_out: SkippedCounts = NOTHING_SKIPPED
    ) -> StepResult:
        """Forward, backward and update for this rank's micro-batches of one global batch.

        The loss is the sum of cross entropy over all predicted positions of the global batch divided by their number,
        so that neither the loss nor the update depends on how rows are dealt out to ranks and micro-batches. Loss and
        norm are sums over all ranks: they agree on whether a step overflowed. Steps left out before this one, which
        ``left_out`` counts, have not moved the learning rate on.
        """
        device, gradients = self.processes.device, self.optimizer.gradients
        counts = torch.tensor(
            [sum(b.predictions for b in micro_batches), sum(b.tokens for b in micro_batches)], dtype=torch.float64
        ).to(device)
        self.operations.at("counting predictions")
        self.processes.all_reduce_over_data(counts)
        scale = self.loss_scale.value
        weight = (scale / counts[0]).float()
        gradients.zero()
        batches = [self.objective.prepare(batch) for batch in micro_batches]
        losses = self.execution.train(batches, weight, gradients, partial(self._seed_dropout, iteration))
        total = sum_of(losses, device)
        self.operations.at("sum of losses")
        self.processes.all_reduce_losses(total)
        # The one synchronisation with the device of a step.
        loss_sum, norm, predictions, tokens = torch.stack([total, gradients.norm(), *counts]).tolist()
        loss_value, norm = loss_sum / predictions, norm / scale
        skipped = not (math.isfinite(loss_value) and math.isfinite(norm))
        self.operations.at("update")
        if not skipped:
            self.optimizer.step(iteration, norm, scale, left_out)
        searching = skipped and math.isfinite(loss_value) and self.loss_scale.can_decrease
        self.loss_scale.update(overflow=skipped)
        suspects = _not_finite(losses) if skipped else ()
        return StepResult(loss_value, norm, int(tokens), int(predictions), skipped, scale, suspects, searching)

    @torch.no_grad()
    def evaluate(
        self, micro_batches: MicroBatches | Sequence[MicroBatch], iteration: int, split: str
    ) -> EvaluationLossRecord:
        """Mean loss over all predicted positions of the given rows, the ranks' shares together."""
        began = time.perf_counter()
        self.model.eval()
        # The first one of a process starts workers, and may compile.
        first = split not in self._evaluated
        self._evaluated.add(split)
        self.operations.at(f"evaluation on {split}", Allowance.WORKING if first else Allowance.NONE)
        counts = torch.zeros(2, dtype=torch.float64)

        def counted() -> Iterator[MicroBatch]:
            for number, micro_batch in enumerate(self._as_many_on_all(micro_batches)):
                if number == self.processes.dims.pipeline:  # so many are asked for before the first is computed
                    self.operations.settle()
                self.operations.within(f"micro-batch {number + 1}")
                counts.add_(torch.tensor([micro_batch.predictions, micro_batch.rows]))
                yield self.objective.prepare(micro_batch)

        total = self.execution.evaluate(counted())
        self.operations.at(f"sum of the losses on {split}")
        loss = self.processes.all_reduce_losses(total)
        sums = self.processes.all_reduce_over_data(counts.to(self.processes.device))
        self.model.train()
        loss_sum, predictions, rows = torch.cat([loss.unsqueeze(0), sums]).tolist()
        seconds = time.perf_counter() - began
        return EvaluationLossRecord(
            iteration, split, loss_sum / max(predictions, 1), int(predictions), int(rows), seconds
        )

    def _as_many_on_all(self, micro_batches: MicroBatches | Sequence[MicroBatch]) -> Iterator[MicroBatch]:
        """The micro-batches, and empty ones where another rank has more: shards are gathered by all ranks together."""
        # Asked before the first of them: ranks that are done must not meet others' gathers.
        most = max(self.processes.gather(len(micro_batches))) if self.processes.dims.fsdp_enabled else 0
        yield from micro_batches
        for _ in range(most - len(micro_batches)):
            yield MicroBatch.empty()

    def _seed_dropout(self, iteration: int, number: int) -> None:
        """Dropout is a pure function of (seed, iteration, place of the micro-batch in the global batch).

        So it is the same after a restart and for any number of data-parallel ranks; tensor ranks agree outside the
        split region and differ inside it (pretrain.parallel.tensor_parallel). Pipeline stages, and tensor ranks with
        tokens of
        their own, draw from streams of their own: under these layouts the masks are others than on one process.
        """
        processes = self.processes
        place = number * processes.dims.data + processes.data_rank
        own = (processes.stage, processes.tensor_rank if processes.dims.sequence_parallel_enabled else 0)
        key = [_STREAM_DROPOUT, self.seed, iteration, place, *(own if any(own) else ())]
        words = np.random.SeedSequence(key).generate_state(2, np.uint32)
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def _not_finite(losses: Sequence[Tensor]) -> tuple[int, ...]:
    """Numbers of the losses that are not finite; of all, when the fault lies in a gradient or on another rank."""
    bad = [number for number, loss in enumerate(losses) if not math.isfinite(float(loss))]
    return tuple(bad or range(len(losses)))
