"""Finetuning: epochs of optimizer steps, validation, early stopping and saving.

An optimizer step sees ``batch_size`` proteins, divided over accumulation steps and ranks. Its gradient is that of the
mean loss over all labels of those proteins, however they are divided: each micro-batch is weighted by its number of
labels. One thing depends on the division: batch normalization (in the heads of secondary structure and contacts) takes
its statistics from each micro-batch alone, and its running statistics from the micro-batches of rank 0 (those of
``pooled_norm`` from up to 2,048 proteins after each epoch).
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Protocol

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tape.datasets.batching import MicroBatchPlan, Step, plan_epoch
from tape.datasets.labels import Batch, count_correct, count_labels, model_inputs, placeholder_loss
from tape.datasets.loading import load_batches, worker_count
from tape.errors import CheckpointError, DataError, ProteinLMError
from tape.evaluation.evaluate import batch_shape, evaluate, forward
from tape.models.freezing import set_training_mode
from tape.models.lora import adapter_state, load_adapter
from tape.runtime.distributed import DistributedContext, all_gather_lists, all_reduce_sum, barrier, broadcast_buffers
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory
from tape.runtime.precision import autocast, make_scaler
from tape.runtime.progress import Throughput, progress_bar
from tape.runtime.stop_signals import StopSignals
from tape.tasks import TASK_TYPE_TRAITS, TaskType

from .best_epoch import LOSS, criterion_of
from .checkpoint import TrainerState
from .config import LoopConfig
from .data import TrainingData
from .norm_statistics import PROTEINS, pooled_norm_of, update_statistics
from .optimizer import make_optimizer
from .partial_epoch import PartialEpoch, random_state, set_random_state
from .prediction_intervals import keep_half_widths
from .running_means import RunningMeans
from .seeding import epoch_seed, seed_all

logger = logging.getLogger(__name__)


class EpochLogger(Protocol):
    """Stores the metrics and models of a run; see :class:`tape.finetuning.run_logger.RunLogger`."""

    def log_scalars(self, group: str, values: dict[str, float], step: int) -> None: ...
    def log_epoch(self, record: dict[str, Any]) -> None: ...
    def save(
        self, model: nn.Module, training_state: dict[str, Any], state: TrainerState, loss: float | None
    ) -> None: ...
    def save_interrupted(self, model: nn.Module, training_state: dict[str, Any], state: TrainerState) -> None: ...


class Finetuner:
    """Trains one model on one task: :meth:`train` runs epochs, each of optimizer steps and a validation.

    Args:
        model: on its device, with TAPE's calling convention.
        data: training and validation set.
        task_type: type of the task.
        config: settings of the loop.
        context: the ranks that train together.
        run_logger: stores metrics and models; None on all ranks but 0.
        validation_model: the model for validation, if it is not ``model`` itself.
        signals: stop signals of this process: at one, all ranks save after the step.

    Attributes:
        interrupted: whether a stop signal has ended :meth:`train`.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        task_type: TaskType,
        config: LoopConfig,
        context: DistributedContext | None = None,
        run_logger: EpochLogger | None = None,
        validation_model: nn.Module | None = None,
        signals: StopSignals | None = None,
    ) -> None:
        self.model, self.data, self.task_type, self.config = model, data, task_type, config
        self.batch_size = config.batch_size_for(task_type)
        self._parameters = list(model.parameters())  # listing them takes as long as several operations of a small model
        all_trained = all(parameter.requires_grad for parameter in self._parameters)
        self._fewer_parameters = ("--lora RANK", "--freeze") if all_trained else ()
        self.validation_model = validation_model or model
        self.context = context or DistributedContext()
        self.run_logger = run_logger
        self.signals = signals or StopSignals()
        self.interrupted = False
        self.state = TrainerState()
        self.steps_per_epoch = -(-len(data.indices) // self.batch_size)
        self.total_steps = self.steps_per_epoch * config.num_train_epochs
        self.optimizer, self.schedule = make_optimizer(model, config.optimizer, self.total_steps)
        self.scaler = make_scaler(config.precision, self.context.device)
        self._learning_rate = 0.0
        self._partial_epoch: PartialEpoch | None = None  # to go on with
        self._parallel = self._data_parallel()

    def _data_parallel(self) -> nn.Module:
        if not self.context.is_distributed:
            return self.model
        devices = [self.context.device] if self.context.device.type == "cuda" else None
        return DistributedDataParallel(
            self.model, device_ids=devices, find_unused_parameters=self._has_unused_parameters()
        )

    def _has_unused_parameters(self) -> bool:
        """Whether some parameters get no gradient, as in some third parties' models; DDP needs to know.

        Tested with one protein in evaluation mode, which leaves batch statistics alone.
        """
        dataset = self.data.train
        batch = dataset.collate_fn([dataset[int(self.data.indices[0])]])
        self.model.eval()
        with explain_out_of_memory("the first pass", batch_shape(batch), self._remedies):
            loss, _ = forward(self.model, model_inputs(batch, self.context.device))
            loss.backward()
        unused = any(p.requires_grad and p.grad is None for p in self._parameters)
        self.model.zero_grad()
        return unused

    def describe(self) -> str:
        """One line about the run."""
        config, data = self.config, self.data
        size = sum(parameter.numel() for parameter in self._parameters)
        trained = sum(parameter.numel() for parameter in self._parameters if parameter.requires_grad)
        trainable = f" ({trained:,} trained)" if trained < size else ""
        chosen, every = len(data.indices), len(data.train)
        proteins = f"{every:,} proteins" if chosen == every else f"{chosen:,} of {every:,} proteins"
        return (
            f"{size:,} parameters{trainable}, {proteins}, {config.num_train_epochs} epochs of"
            f" {self.steps_per_epoch} steps of {self.batch_size} proteins, {self.schedule.warmup_steps} warm-up steps,"
            f" {config.precision} on {self.context.world_size} x {self.context.device.type}"
        )

    # --- the run ----------------------------------------------------------------------------------------------------

    @property
    def epochs_left(self) -> range:
        """The epochs from that of the next step on, counted from 0."""
        return range(self.state.epoch + 1, self.config.num_train_epochs)

    def train(self) -> TrainerState:
        """Train until the last epoch, early stopping or a stop signal; returns the final state."""
        if not self.epochs_left:
            logger.info("all %d epochs are complete; nothing to train", self.state.epoch + 1)
        for epoch in self.epochs_left:
            self._run_epoch(epoch)
            if self.interrupted:
                break
            if self._patience_exhausted():
                logger.info("early stopping: no better epoch for %d epochs", epoch - self.state.best_epoch)
                break
        return self.state

    def _run_epoch(self, epoch: int) -> None:
        """Train, validate, log and save; at a stop signal, save only."""
        keep_half_widths(self.model, None)
        start = time.monotonic() - (0.0 if self._partial_epoch is None else self._partial_epoch.seconds)
        train = self.train_epoch(epoch, start)
        if train is None:
            return
        self._update_norm_statistics(epoch)
        broadcast_buffers(self.model, self.context)
        valid = self.validate() if self.config.is_validated(epoch) else None
        self.state.epoch, criterion = epoch, criterion_of(valid, self.config.metric_for_best_model)
        improved = self.state.update_best(criterion)
        record = {
            "epoch": epoch,
            "step": self.state.global_step,
            "learning_rate": self._learning_rate,
            "seconds": round(time.monotonic() - start, 3),
            "train": train,
            "valid": valid,
        }
        self._log_epoch(record)
        if is_saved := self._save_is_due(epoch, improved):
            self._save(None if valid is None else valid["loss"], criterion)
        if self._stop_requested():
            self._interrupt(None, is_saved or self._patience_exhausted())

    def train_epoch(self, epoch: int, start: float) -> dict[str, float] | None:
        """All optimizer steps of an epoch, or those that an interrupted run has not taken.

        Args:
            epoch: number of the epoch, from 0.
            start: its start, on ``time.monotonic()``.

        Returns:
            The means over the labels of the epoch; None: a stop signal was received, and the position is saved.

        Raises:
            DataError: no protein has a label.
        """
        seed = epoch_seed(self.config.seed, epoch, self.context.rank)
        seed_all(seed)
        if hasattr(self.data.train, "set_epoch"):
            self.data.train.set_epoch(self.config.seed, epoch)
        plan = self._plan(epoch)
        means = since_log, over_epoch = RunningMeans(self.task_type), RunningMeans(self.task_type)
        done = self._restore_partial_epoch(means, seed)
        if self._stop_requested():  # while states of a frozen encoder were computed, which the first step would need
            self._interrupt(self._position(done, time.monotonic() - start, means))
            return None
        batches = self._load(plan[done:], seed)
        set_training_mode(self.model)
        title, speed = f"epoch {epoch} ({epoch + 1} of {self.config.num_train_epochs})", Throughput("proteins")
        with progress_bar(title, len(plan), "step", initial=done, disable=not self.context.is_main) as bar:
            for number, step in enumerate(plan[done:], start=done + 1):
                micro_batches = [(micro, next(batches)) for micro in step]
                norm = self.train_step(micro_batches, means)
                bar.update()
                speed.add(self.context.world_size * sum(len(micro.indices) for micro in step))
                if self.state.global_step % self.config.num_log_iter == 0:
                    bar.clear()
                    self._log_step(epoch, number, since_log.means(self.context), norm, speed)
                if self._stop_requested():
                    self._interrupt(self._position(number, time.monotonic() - start, means))
                    return None
        values = over_epoch.means(self.context)
        if not values:
            source = getattr(getattr(self.data.train, "data", None), "path", "the training data")
            raise DataError(f"{source}: nothing to learn from: no record has a valid label")
        return values

    def _update_norm_statistics(self, epoch: int) -> None:
        if (norm := pooled_norm_of(self.model)) is None:
            return
        plan = self._plan(epoch)[: -(-PROTEINS // self.batch_size)]
        batches = load_batches(self.data.train, [micro.indices for step in plan for micro in step], num_workers=0)
        update_statistics(self.model, norm, batches, self.config.precision, self.context)

    def _plan(self, epoch: int) -> list[Step]:
        return plan_epoch(
            self.data.lengths,
            self.data.indices,
            batch_size=self.batch_size,
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

    def train_step(self, micro_batches: list[tuple[MicroBatchPlan, Batch]], means: tuple[RunningMeans, ...]) -> float:
        """One optimizer step; returns the gradient norm before clipping."""
        counts = [count_labels(self.task_type, batch) if micro.counted else 0 for micro, batch in micro_batches]
        (total,) = all_reduce_sum([sum(counts)], self.context)
        self.state.global_step += 1
        norm = 0.0
        if total > 0:  # else no protein of the step has a label, on any rank
            for number, ((_, batch), count) in enumerate(zip(micro_batches, counts, strict=True), start=1):
                with self._gradient_sync(is_last=number == len(micro_batches)):
                    self._forward_backward(batch, count, count * self.context.world_size / total, means)
            norm = self._update_weights()
        self._learning_rate = float(self.schedule.get_last_lr()[0])  # of this step
        self.schedule.set_step(self.state.global_step)
        return norm

    def _gradient_sync(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are all-reduced once per step, in the backward pass of the last micro-batch."""
        if is_last or not isinstance(self._parallel, DistributedDataParallel):
            return contextlib.nullcontext()
        no_sync: Callable[[], contextlib.AbstractContextManager[None]] = self._parallel.no_sync
        return no_sync()

    def _forward_backward(self, batch: Batch, count: int, weight: float, means: tuple[RunningMeans, ...]) -> None:
        """Add the gradient of a micro-batch.

        DDP averages gradients over ranks, so the weight is the micro-batch's share of the step's labels times the
        number of ranks.
        """
        device, shape = self.context.device, batch_shape(batch)
        with (
            explain_out_of_memory("the forward pass", shape, self._remedies),
            autocast(self.config.precision, device),
        ):
            inputs = model_inputs(batch, device)
            loss, prediction = forward(self._parallel, inputs)
        if count == 0:  # every rank needs a backward pass; the loss itself may be the mean over no label
            loss, weight = placeholder_loss(prediction), 0.0
        with explain_out_of_memory("the backward pass", shape, self._remedies):
            self.scaler.scale(loss * weight).backward()
        if count == 0:
            return
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ProteinLMError(
                f"the training loss is {value} at step {self.state.global_step}; try a lower --learning_rate"
            )
        correct = count_correct(self.task_type, prediction, inputs)
        for mean in means:
            mean.add(value, correct, count)

    @cached_property
    def _remedies(self) -> MemoryRemedies:
        """What lowers the memory of a training step; only options that this run does not use yet."""
        config = getattr(self.model, "config", None)
        always = ["--max_length N"]
        if self.task_type == TaskType.RESIDUE_PAIR and getattr(config, "contact_head", None) == "resnet":
            checkpointed = getattr(config, "contact_checkpoint", False)
            always += [] if checkpointed else ["--config contact_checkpoint=true"]
            always += ["--contact_head linear"]
        if self.config.precision == "fp32":
            always.append("--bf16")
        several = ("more --gradient_accumulation_steps", "--max_tokens N", "a smaller --batch_size")
        return MemoryRemedies(several, (*always, *self._fewer_parameters))

    def _update_weights(self) -> float:
        """Clip the gradients, step the optimizer, and zero the gradients (bug 1 in docs/compatibility.md)."""
        self.scaler.unscale_(self.optimizer)
        limit = self.config.optimizer.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, limit if limit > 0 else math.inf)
        with explain_out_of_memory("the optimizer step", None, MemoryRemedies(always=self._fewer_parameters)):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return float(norm)

    def validate(self) -> dict[str, float]:
        """Loss and metrics of the validation set."""
        inference = self.config.validation_for(self.task_type, self.context.world_size)
        model, valid = self.validation_model, self.data.valid
        evaluation = evaluate(model, valid, self.task_type, inference, self.context, title="validation")
        keep_half_widths(self.model, evaluation.measured)
        return evaluation.values()

    # --- stop signals -----------------------------------------------------------------------------------------------

    def _stop_requested(self) -> bool:
        """Whether any rank has received a stop signal; called by all ranks together."""
        (received,) = all_reduce_sum([float(self.signals.received != 0)], self.context)
        return received > 0

    def _position(self, steps: int, seconds: float, means: tuple[RunningMeans, ...]) -> PartialEpoch:
        own = {"random": random_state(self.context.device), "means": [mean.sums() for mean in means]}
        return PartialEpoch(steps, seconds, self._order(), all_gather_lists([own], self.context))

    def _order(self) -> dict[str, int]:
        proteins = len(self.data.indices)
        return {"seed": self.config.seed, "batch_size": self.batch_size, "proteins": proteins}

    def _interrupt(self, position: PartialEpoch | None, is_saved: bool = False) -> None:
        """End the training, and save its state unless that is done.

        Args:
            position: position inside the epoch; None: the epoch is complete.
            is_saved: whether the state is saved already.
        """
        self.interrupted = True
        if is_saved:
            return
        if self.run_logger is not None:
            training_state = self.state_dict()
            if position is not None:
                training_state["partial_epoch"] = position.as_state()
            self.run_logger.save_interrupted(self.model, training_state, self.state)
        barrier(self.context)

    def _restore_partial_epoch(self, means: tuple[RunningMeans, ...], seed: int) -> int:
        """Go on where the epoch was interrupted; returns the number of its steps that are done."""
        partial, self._partial_epoch = self._partial_epoch, None
        if partial is None:
            return 0
        if len(partial.ranks) != self.context.world_size:
            self._restore_on_other_ranks(partial, means, seed)
            return partial.steps
        own = partial.ranks[self.context.rank]
        set_random_state(own["random"], self.context.device)
        for mean, part in zip(means, own["means"], strict=True):
            mean.restore(part)
        return partial.steps

    def _restore_on_other_ranks(self, partial: PartialEpoch, means: tuple[RunningMeans, ...], seed: int) -> None:
        """The sums of all ranks go on rank 0; the random generators begin new sequences."""
        logger.warning(
            "interrupted on %d ranks and resumed on %d: dropout differs from that of an uninterrupted run",
            len(partial.ranks),
            self.context.world_size,
        )
        seed_all(seed + partial.steps)
        for number, mean in enumerate(means if self.context.is_main else ()):
            parts = [rank["means"][number] for rank in partial.ranks]
            mean.restore([sum(values) for values in zip(*parts, strict=True)])

    # --- when to stop and to save -----------------------------------------------------------------------------------

    def _patience_exhausted(self) -> bool:
        is_defined = self.config.metric_for_best_model == LOSS or self.state.best_loss is not None
        is_due = is_defined and self.config.is_validated(self.state.epoch)
        return is_due and 0 < self.config.patience <= self.state.epoch - self.state.best_epoch

    def _save_is_due(self, epoch: int, improved: bool) -> bool:
        """Whether the epoch is saved. Every run ends with at least one saved model."""
        is_last = epoch + 1 == self.config.num_train_epochs or self._patience_exhausted()
        if isinstance(self.config.save_freq, str):
            return improved or (is_last and self.state.best_loss is None)
        return is_last or (epoch + 1) % self.config.save_freq == 0

    def _save(self, loss: float | None, criterion: float | None) -> None:
        self.state.update_best_saved(criterion)
        if self.run_logger is not None:
            self.run_logger.save(self.model, self.state_dict(), self.state, loss)
        barrier(self.context)  # no rank starts an epoch before the last one is saved

    # --- checkpoint and resume --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the weights and :class:`TrainerState`."""
        state = {"optimizer": self.optimizer.state_dict(), "scheduler": self.schedule.state_dict()}
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        if adapter := adapter_state(self.model):
            state["adapter"] = adapter
        return state

    def resume(self, training_state: dict[str, Any], state: TrainerState) -> None:
        """Resume after a saved epoch, or inside an interrupted one, with this run's learning rate, weight decay, batch
        size and length.

        Steps are counted in batches of this run's size; otherwise another batch size would put the schedule at a wrong
        step, even past its end (bug 9 in docs/compatibility.md).

        Raises:
            CheckpointError: the optimizer's or the adapter's state does not fit the model.
            ConfigError: the epoch was interrupted, and this run has another order of proteins.
        """
        load_adapter(self.model, training_state.get("adapter"))
        settings = [(group["weight_decay"], group["initial_lr"]) for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(training_state["optimizer"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"the saved optimizer state does not fit this model: {error}") from error
        for group, (decay, peak) in zip(self.optimizer.param_groups, settings, strict=True):
            group["weight_decay"], group["initial_lr"] = decay, peak
        if "scaler" in training_state and self.scaler.is_enabled():
            self.scaler.load_state_dict(training_state["scaler"])
        self.state = state
        self.state.global_step = (state.epoch + 1) * self.steps_per_epoch
        if "partial_epoch" in training_state:
            self._partial_epoch = PartialEpoch.from_state(training_state["partial_epoch"])
            self._partial_epoch.check_order(self._order())
            self.state.global_step += self._partial_epoch.steps
        self.schedule.set_step(max(0, self.state.global_step - 1))
        self._learning_rate = float(self.schedule.get_last_lr()[0])  # of the last step
        self.schedule.set_step(self.state.global_step)

    # --- logging ----------------------------------------------------------------------------------------------------

    def _log_step(self, epoch: int, number: int, means: dict[str, float], norm: float, speed: Throughput) -> None:
        """One log line, and TensorBoard's ``train/`` values."""
        if self.run_logger is None:
            return
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        logger.info(
            "epoch %d, step %d/%d: %s, learning rate %.3g, gradient norm %.3g; %s",
            epoch,
            number,
            self.steps_per_epoch,
            numbers or "no labels",
            self._learning_rate,
            norm,
            speed.text(self.total_steps - self.state.global_step),
        )
        values = {**means, "learning_rate": self._learning_rate, "gradient_norm": norm}
        self.run_logger.log_scalars("train", values, self.state.global_step)

    def _log_epoch(self, record: dict[str, Any]) -> None:
        """Log lines, TensorBoard's ``val/`` values, and the record of the history."""
        if self.run_logger is None:
            return
        for group in ("train", "valid"):
            values = record[group] or {}
            shown = [name for name in TASK_TYPE_TRAITS[self.task_type].headline if name in values]
            numbers = ", ".join(f"{name} {values[name]:.4g}" for name in shown)
            if numbers:
                logger.info("epoch %d, %s: %s", record["epoch"], group, numbers)
        if record["valid"]:
            self.run_logger.log_scalars("val", record["valid"], record["step"])
        self.run_logger.log_epoch(record)
