"""One step of training, and one evaluation. Everything they work with is made beforehand and handed in."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tape.models.modeling_bert import ProteinBertForMaskedLM

from .batch_schedule import BatchConfig
from .data.samples import MicroBatch
from .operations import Operations
from .optimizer import Optimizer
from .parallel import Processes
from .precision import LossScale, PrecisionConfig
from .reporting import EvaluationRecord

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
        model: on its device.
        optimizer: of its parameters; holds the gradients.
        processes: the layout.
        precision: of the forward pass.
        batch: rows of a step.
        seed: of dropout.
        operations: is told what is being done.
    """

    def __init__(
        self,
        model: ProteinBertForMaskedLM,
        optimizer: Optimizer,
        processes: Processes,
        precision: PrecisionConfig,
        batch: BatchConfig,
        seed: int,
        operations: Operations | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.processes = processes
        self.precision = precision
        self.batch = batch
        self.seed = seed
        self.operations = operations or Operations()
        self.loss_scale = LossScale(precision)

    def step(self, iteration: int, micro_batches: Sequence[MicroBatch]) -> StepResult:
        """Forward, backward and update for this rank's micro-batches of one global batch.

        The loss is the sum of cross entropy over all predicted positions of the global batch divided by their number,
        so that neither the loss nor the update depends on how rows are dealt out to ranks and micro-batches.
        """
        device, gradients = self.processes.device, self.optimizer.gradients
        counts = torch.tensor(
            [sum(b.predictions for b in micro_batches), sum(b.tokens for b in micro_batches)], dtype=torch.float64
        ).to(device)
        self.operations.at("counting predictions")
        self.processes.sum_over_data(counts)
        scale = self.loss_scale.value
        weight = (scale / counts[0]).float()
        total = torch.zeros((), dtype=torch.float64, device=device)
        losses = []
        gradients.zero()
        for number, micro_batch in enumerate(micro_batches):
            self._seed_dropout(iteration, number)
            self.operations.at(f"forward pass of micro-batch {number + 1}")
            loss = self.loss_sum(micro_batch.to(device))
            self.operations.at(f"backward pass of micro-batch {number + 1}")
            with gradients.summing() if number == len(micro_batches) - 1 else nullcontext():
                (loss * weight).backward()
            losses.append(loss.detach())
            total += losses[-1]
        self.operations.at("sum of losses and norm of gradients")
        self.processes.sum_over_data(total)
        # The one synchronisation with the device of a step.
        loss_sum, norm, predictions, tokens = torch.stack([total, gradients.norm(), *counts]).tolist()
        loss_value, norm = loss_sum / predictions, norm / scale
        skipped = not (math.isfinite(loss_value) and math.isfinite(norm))
        self.operations.at("update")
        if not skipped:
            self.optimizer.step(iteration, norm, scale)
        searching = skipped and math.isfinite(loss_value) and self.loss_scale.may_fall
        self.loss_scale.update(overflow=skipped)
        suspects = _not_finite(losses) if skipped else ()
        return StepResult(loss_value, norm, int(tokens), int(predictions), skipped, scale, suspects, searching)

    def loss_sum(self, micro_batch: MicroBatch) -> Tensor:
        """Cross entropy summed over the predicted positions of a micro-batch; fp32 scalar.

        The head sees the predicted positions only, about one in seven.
        """
        with self.precision.autocast(self.processes.device):
            hidden = self.model.bert(micro_batch.input_ids, packing=micro_batch.layout)[0]
            logits = self.model.mlm_logits(hidden[0].index_select(0, micro_batch.predicted))
        return F.cross_entropy(logits.float(), micro_batch.labels, reduction="sum")

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[MicroBatch], iteration: int, split: str) -> EvaluationRecord:
        """Mean loss over all predicted positions of the given rows, the ranks' shares together."""
        began = time.perf_counter()
        self.model.eval()
        self.operations.at(f"evaluation on {split}", may_take_long=True)
        device = self.processes.device
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        for micro_batch in micro_batches:
            self.operations.goes_on()
            loss = self.loss_sum(micro_batch.to(device)).double()
            counts = torch.tensor([micro_batch.predictions, micro_batch.rows], dtype=torch.float64)
            sums += torch.cat([loss.unsqueeze(0), counts.to(device, non_blocking=True)])
        self.processes.sum_over_data(sums)
        self.model.train()
        loss_sum, predictions, rows = sums.tolist()
        seconds = time.perf_counter() - began
        return EvaluationRecord(iteration, split, loss_sum / max(predictions, 1), int(predictions), int(rows), seconds)

    def _seed_dropout(self, iteration: int, number: int) -> None:
        """Dropout is a pure function of (seed, iteration, place of the micro-batch in the global batch).

        So it is the same after a restart and for any number of data-parallel ranks; tensor ranks agree outside the
        split region and differ inside it (pretrain.parallel.tensor).
        """
        place = number * self.processes.dims.data + self.processes.data_rank
        words = np.random.SeedSequence([_STREAM_DROPOUT, self.seed, iteration, place]).generate_state(2, np.uint32)
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def _not_finite(losses: Sequence[Tensor]) -> tuple[int, ...]:
    """Numbers of the losses that are not finite; of all, when the fault lies in a gradient or on another rank."""
    bad = [number for number, loss in enumerate(losses) if not math.isfinite(float(loss))]
    return tuple(bad or range(len(losses)))
