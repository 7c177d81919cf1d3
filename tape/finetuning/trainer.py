"""Finetuning: epochs of optimizer steps, validation, early stopping and saving.

An optimizer step sees ``batch_size`` proteins, divided over accumulation steps and ranks. Its gradient is that of the
mean loss over all labels of those proteins, however they are divided (each part is weighted by its number of labels).
One thing depends on the division: batch normalisation (in the heads of secondary structure and contacts) takes its
statistics from each part alone, and its running statistics from the parts of rank 0.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tape.datasets.batching import MicroBatchPlan, Step, plan_epoch
from tape.datasets.labels import Batch, count_labels, model_inputs, right_labels, sum_of
from tape.datasets.loading import load_batches, worker_count
from tape.errors import CheckpointError, DataError, ProteinLMError
from tape.evaluation.evaluate import EvaluationConfig, evaluate, forward
from tape.metrics.classes import perplexity
from tape.models.freezing import set_training_mode
from tape.models.lora import adapter_state, load_adapter
from tape.runtime.distributed import DistributedContext, all_reduce_sum, barrier, broadcast_buffers
from tape.runtime.precision import autocast, make_scaler
from tape.runtime.progress import progress_bar
from tape.tasks import TASK_TYPE_TRAITS, TaskType

from .checkpoint import TrainerState
from .config import TrainingConfig
from .optimizer import make_optimizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The proteins of a run.

    Attributes:
        train: data set.
        lengths: (N,) residues of each of its proteins.
        indices: records to use.
        valid: data set, or None when there is no validation.
    """

    train: Any
    lengths: np.ndarray
    indices: np.ndarray
    valid: Any = None


class EpochLogger(Protocol):
    """Where a run's numbers and models go; only rank 0 has a real one."""

    def scalars(self, group: str, values: dict[str, float], step: int) -> None: ...
    def epoch(self, record: dict[str, Any]) -> None: ...
    def save(
        self, model: nn.Module, training_state: dict[str, Any], progress: TrainerState, loss: float | None
    ) -> None: ...


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed of everything random in an epoch: differs between ranks, or all would drop the same units (defect 12)."""
    return int(np.random.SeedSequence([seed, epoch + 1, rank]).generate_state(1)[0])


def seed_all(seed: int) -> None:
    """Seed PyTorch, and numpy and Python for third parties' data sets."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


class RunningMeans:
    """Means over labels of what a run reports between two points: loss, accuracy."""

    def __init__(self, shape: TaskType) -> None:
        self._shape = shape
        self._loss = self._right = self._count = 0.0
        self._has_classes = False

    def add(self, loss: float, right: Tensor | None, count: int) -> None:
        self._loss += loss * count
        self._count += count
        if right is not None:
            self._has_classes = True
            self._right += float(right)

    def means(self, context: DistributedContext) -> dict[str, float]:
        """Means over the labels of all ranks (defect 18); empties the sums."""
        loss, right, count = all_reduce_sum([self._loss, self._right, self._count], context)
        self._loss = self._right = self._count = 0.0
        if count == 0:
            return {}
        values = {"loss": loss / count}
        if self._has_classes:
            values["accuracy"] = right / count
        if self._shape in (TaskType.MASKED_LM, TaskType.LANGUAGE_MODEL):
            values["perplexity"] = perplexity(values["loss"])
        return values


class Finetuner:
    """Trains one model on one task.

    Args:
        model: on its device, with TAPE's calling convention.
        data: what to train and validate on.
        shape: of the task.
        config: settings.
        context: the processes that train together.
        recorder: where numbers and models go; None on ranks that write nothing.
        validated: the model as validation calls it, when that is not ``model`` itself.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        shape: TaskType,
        config: TrainingConfig,
        context: DistributedContext | None = None,
        recorder: EpochLogger | None = None,
        validated: nn.Module | None = None,
    ) -> None:
        self.model, self.data, self.shape, self.config = model, data, shape, config
        self.validated = validated or model
        self.context = context or DistributedContext()
        self.recorder = recorder
        self.progress = TrainerState()
        self.steps_per_epoch = -(-len(data.indices) // config.batch_size)
        self.total_steps = self.steps_per_epoch * config.num_train_epochs
        self.optimizer, self.schedule = make_optimizer(model, config.optimizer, self.total_steps)
        self.scaler = make_scaler(config.precision, self.context.device)
        self._rate = 0.0
        self._parallel = self._wrap()

    def _wrap(self) -> nn.Module:
        if not self.context.is_distributed:
            return self.model
        devices = [self.context.device] if self.context.device.type == "cuda" else None
        return DistributedDataParallel(
            self.model, device_ids=devices, find_unused_parameters=self._has_unused_parameters()
        )

    def _has_unused_parameters(self) -> bool:
        """Whether a loss reaches all parameters: a third party's model may hold more, which DDP must be told.

        Found out with one protein in evaluation mode, which leaves batch statistics alone.
        """
        dataset = self.data.train
        batch = dataset.collate_fn([dataset[int(self.data.indices[0])]])
        self.model.eval()
        loss, _ = forward(self.model, model_inputs(batch, self.context.device))
        loss.backward()
        unused = any(p.requires_grad and p.grad is None for p in self.model.parameters())
        self.model.zero_grad()
        return unused

    def describe(self) -> str:
        """One line about the run."""
        config, data = self.config, self.data
        size = sum(parameter.numel() for parameter in self.model.parameters())
        trained = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        part = f" ({trained:,} trained)" if trained < size else ""
        left_out = len(data.train) - len(data.indices)
        return (
            f"{size:,} parameters{part}, {len(data.indices):,} proteins ({left_out:,} left out),"
            f" {config.num_train_epochs} epochs of {self.steps_per_epoch} steps of {config.batch_size},"
            f" {self.schedule.warmup_steps} steps of warm-up,"
            f" {config.precision} on {self.context.world_size} x {self.context.device.type}"
        )

    # --- state ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What resuming needs beside the model's weights and the progress."""
        state = {"optimizer": self.optimizer.state_dict(), "scheduler": self.schedule.state_dict()}
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        if adapter := adapter_state(self.model):
            state["adapter"] = adapter
        return state

    def resume(self, state: dict[str, Any], progress: TrainerState) -> None:
        """Go on after a saved epoch. Rate, decay, batch and length of the run are this run's, not the saved one's.

        Steps are counted in this run's batches, or another batch size would leave the schedule at a wrong place, even
        past its end (defect 9).

        Raises:
            CheckpointError: the optimizer's or the adapter's state does not fit the model.
        """
        load_adapter(self.model, state.get("adapter"))
        settings = [(group["weight_decay"], group["initial_lr"]) for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"the saved optimizer state does not fit this model: {error}") from error
        for group, (decay, peak) in zip(self.optimizer.param_groups, settings, strict=True):
            group["weight_decay"], group["initial_lr"] = decay, peak
        if "scaler" in state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.progress = progress
        self.progress.global_step = (progress.epoch + 1) * self.steps_per_epoch
        self.schedule.continue_from(self.progress.global_step)

    # --- run --------------------------------------------------------------------------------------------------------

    def train(self) -> TrainerState:
        """Train until the last epoch, or until patience runs out; returns how far it came."""
        first = self.progress.epoch + 1
        if first >= self.config.num_train_epochs:
            logger.info("all %d epochs are done already; nothing to train", first)
        for epoch in range(first, self.config.num_train_epochs):
            self._run_epoch(epoch)
            if self._out_of_patience():
                logger.info("no lower validation loss for %d epochs: stopping", epoch - self.progress.best_epoch)
                break
        return self.progress

    def _run_epoch(self, epoch: int) -> None:
        start = time.monotonic()
        train = self._train_epoch(epoch)
        if not train:
            source = getattr(getattr(self.data.train, "data", None), "path", "the training data")
            raise DataError(f"{source}: nothing to learn from: no record has a label that counts")
        broadcast_buffers(self.model, self.context)
        valid = self._validate() if self._is_due(epoch, self.config.eval_freq) else None
        self.progress.epoch = epoch
        improved = self._note_validation(epoch, valid)
        record = {
            "epoch": epoch,
            "step": self.progress.global_step,
            "learning_rate": self._rate,
            "seconds": round(time.monotonic() - start, 3),
            "train": train,
            "valid": valid,
        }
        self._report(record)
        if self._should_save(epoch, improved):
            self._save(valid)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        seed = epoch_seed(self.config.seed, epoch, self.context.rank)
        seed_all(seed)
        if hasattr(self.data.train, "set_epoch"):
            self.data.train.set_epoch(self.config.seed, epoch)
        plan = self._plan(epoch)
        batches = self._load(plan, seed)
        interval, whole = RunningMeans(self.shape), RunningMeans(self.shape)
        set_training_mode(self.model)
        title = f"epoch {epoch + 1}/{self.config.num_train_epochs}"
        with progress_bar(title, len(plan), "step", disable=not self.context.is_main) as bar:
            for number, step in enumerate(plan, start=1):
                parts = [(micro, next(batches)) for micro in step]
                norm = self._step(parts, (interval, whole))
                bar.update()
                if self.progress.global_step % self.config.num_log_iter == 0:
                    bar.clear()
                    self._log(epoch, number, interval.means(self.context), norm)
        return whole.means(self.context)

    def _plan(self, epoch: int) -> list[Step]:
        return plan_epoch(
            self.data.lengths,
            self.data.indices,
            batch_size=self.config.batch_size,
            accumulation=self.config.gradient_accumulation_steps,
            rank=self.context.rank,
            world_size=self.context.world_size,
            seed=self.config.seed,
            epoch=epoch,
            max_tokens=self.config.max_tokens,
        )

    def _load(self, plan: list[Step], seed: int) -> Iterator[Batch]:
        return load_batches(
            self.data.train,
            [micro.indices for step in plan for micro in step],
            num_workers=worker_count(self.config.num_workers, len(self.data.indices)),
            seed=seed,
            pin_memory=self.context.device.type == "cuda",
        )

    # --- one optimizer step -----------------------------------------------------------------------------------------

    def _step(self, parts: list[tuple[MicroBatchPlan, Batch]], means: tuple[RunningMeans, ...]) -> float:
        """One optimizer step from its micro-batches; returns the gradient's norm before clipping."""
        counts = [count_labels(self.shape, batch) if micro.counted else 0 for micro, batch in parts]
        (total,) = all_reduce_sum([sum(counts)], self.context)
        self.progress.global_step += 1
        norm = 0.0
        if total > 0:  # else no protein of the step has a label, and there is nothing to learn from it
            for number, ((_, batch), count) in enumerate(zip(parts, counts, strict=True), start=1):
                with self._gradient_exchange(number == len(parts)):
                    self._accumulate(batch, count, count * self.context.world_size / total, means)
            norm = self._update()
        self._rate = float(self.schedule.get_last_lr()[0])  # of the step just made
        self.schedule.continue_from(self.progress.global_step)
        return norm

    def _gradient_exchange(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """DistributedContext exchange gradients once a step, in its last backward pass."""
        if last or not isinstance(self._parallel, DistributedDataParallel):
            return contextlib.nullcontext()
        no_sync: Callable[[], contextlib.AbstractContextManager[None]] = self._parallel.no_sync
        return no_sync()

    def _accumulate(self, batch: Batch, count: int, weight: float, means: tuple[RunningMeans, ...]) -> None:
        """Add one micro-batch's share to the gradient.

        DDP averages over ranks, so a rank's weight is its labels' share of the step times the number of ranks.
        """
        device = self.context.device
        with autocast(self.config.precision, device):
            inputs = model_inputs(batch, device)
            loss, prediction = forward(self._parallel, inputs)
        if count == 0:  # keeps the graph, for the exchange; the loss itself may be a mean over nothing
            loss, weight = sum_of(prediction), 0.0
        self.scaler.scale(loss * weight).backward()
        if count == 0:
            return
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ProteinLMError(
                f"the training loss is {value} at step {self.progress.global_step}; try a lower --learning_rate"
            )
        right = right_labels(self.shape, prediction, inputs)
        for mean in means:
            mean.add(value, right, count)

    def _update(self) -> float:
        """Clip, step, and clear the gradients (defect 1)."""
        self.scaler.unscale_(self.optimizer)
        limit = self.config.optimizer.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit if limit > 0 else math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return float(norm)

    # --- after the steps --------------------------------------------------------------------------------------------

    def _validate(self) -> dict[str, float]:
        config = self.config
        share = -(-config.batch_size // (config.gradient_accumulation_steps * self.context.world_size))
        settings = EvaluationConfig(share, config.num_workers, config.precision, max_tokens=config.max_tokens)
        return evaluate(
            self.validated, self.data.valid, self.shape, settings, self.context, title="validation"
        ).values()

    def _note_validation(self, epoch: int, valid: dict[str, float] | None) -> bool:
        """Remember the lowest loss; returns whether this is it."""
        if valid is None or math.isnan(valid["loss"]):
            return False
        best = self.progress.best_loss
        if best is not None and valid["loss"] >= best:
            return False
        self.progress.best_loss, self.progress.best_epoch = valid["loss"], epoch
        return True

    def _out_of_patience(self) -> bool:
        if self.config.patience <= 0 or not self._is_due(self.progress.epoch, self.config.eval_freq):
            return False
        return self.progress.epoch - self.progress.best_epoch >= self.config.patience

    @staticmethod
    def _is_due(epoch: int, frequency: int) -> bool:
        return frequency > 0 and (epoch + 1) % frequency == 0

    def _should_save(self, epoch: int, improved: bool) -> bool:
        """Whether it is the epoch's turn; no run ends without a saved model."""
        is_last = epoch + 1 == self.config.num_train_epochs or self._out_of_patience()
        if isinstance(self.config.save_freq, str):
            return improved or (is_last and self.progress.best_loss is None)
        return is_last or self._is_due(epoch, self.config.save_freq)

    def _save(self, valid: dict[str, float] | None) -> None:
        loss = None if valid is None else valid["loss"]
        best = self.progress.best_saved_loss
        is_best = loss is not None and not math.isnan(loss) and (best is None or loss < best)
        if is_best:
            self.progress.best_saved_loss, self.progress.best_saved_epoch = loss, self.progress.epoch
        if self.recorder is not None:
            self.recorder.save(self.model, self.state(), self.progress, loss)
        barrier(self.context)  # no rank runs ahead into an epoch that could be lost

    def _log(self, epoch: int, number: int, means: dict[str, float], norm: float) -> None:
        """One line of the log, and tensorboard's ``train/`` values."""
        if self.recorder is None:
            return
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        logger.info(
            "epoch %d, step %d/%d: %s, learning rate %.3g, gradient norm %.3g",
            epoch,
            number,
            self.steps_per_epoch,
            numbers or "no labels",
            self._rate,
            norm,
        )
        values = {**means, "learning_rate": self._rate, "gradient_norm": norm}
        self.recorder.scalars("train", values, self.progress.global_step)

    def _report(self, record: dict[str, Any]) -> None:
        if self.recorder is None:
            return
        for group in ("train", "valid"):
            values = record[group] or {}
            shown = [name for name in TASK_TYPE_TRAITS[self.shape].headline if name in values]
            numbers = ", ".join(f"{name} {values[name]:.4g}" for name in shown)
            if numbers:
                logger.info("epoch %d, %s: %s", record["epoch"], group, numbers)
        if record["valid"]:
            self.recorder.scalars("val", record["valid"], record["step"])
        self.recorder.epoch(record)
