"""TAPE's runners of a model, from ``tape.training``: passes, steps, and the epochs of loops that others have written.

:mod:`tape.finetuning.trainer` is the trainer of this library. Unlike it, these functions average over batches.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tape.datasets.labels import model_inputs
from tape.errors import CheckpointError
from tape.finetuning.checkpoint import CHECKPOINT_NAME
from tape.finetuning.optimizer import WarmupLinearSchedule
from tape.finetuning.tape_runs import check_weights_file
from tape.finetuning.tape_state import assign_by_name
from tape.io.writing import atomic_write
from tape.models.model_directory import BIN_NAME, load_weights_only
from tape.runtime.distributed import choose_device
from tape.runtime.precision import autocast, make_scaler
from tape.runtime.progress import progress_bar

from .accumulators import MetricsAccumulator
from .processes import check_single_process
from .visualizers import DummyVisualizer, TAPEVisualizer

Batch = dict[str, Any]
Metrics = dict[str, float]

logger = logging.getLogger(__name__)


class ForwardRunner:
    """Forward passes of a model with TAPE's calling convention, on one device.

    Args:
        model: on the device.
        device: default: the GPU, if there is one.
        n_gpu: ignored; one device is used.
        fp16: mixed precision in fp16.
        local_rank: -1.

    Raises:
        ConfigError: ``local_rank`` is that of one of several processes.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | None = None,
        n_gpu: int = 1,
        fp16: bool = False,
        local_rank: int = -1,
    ) -> None:
        check_single_process(local_rank)
        self.model = model
        self.device = choose_device(0) if device is None else device
        self.precision = "fp16" if fp16 else "fp32"
        self._arguments = frozenset(inspect.signature(model.forward).parameters)

    def initialize_distributed_model(self) -> None:
        """Does nothing, since there is one process."""

    def forward(self, batch: Batch, return_outputs: bool = False, no_loss: bool = False) -> Any:
        """Call the model with those fields of a batch that it has arguments for.

        Returns:
            (loss, metrics); with ``return_outputs``, (loss, metrics, outputs); with ``no_loss``, the outputs.
        """
        inputs = {name: value for name, value in batch.items() if name in self._arguments}
        with autocast(self.precision, self.device):
            outputs = self.model(**model_inputs(inputs, self.device))
        if no_loss:
            return outputs
        loss, metrics = outputs[0] if isinstance(outputs[0], tuple) else (outputs[0], {})
        return (loss, metrics, outputs) if return_outputs else (loss, metrics)

    def train(self) -> ForwardRunner:
        self.model.train()
        return self

    def eval(self) -> ForwardRunner:
        self.model.eval()
        return self


class BackwardRunner(ForwardRunner):
    """Adds backward passes and steps of the optimizer, with linear warm-up and decay of the learning rate.

    Gradients are cleared after each step (bug 1 in docs/compatibility.md).

    Args:
        model, device, n_gpu, fp16, local_rank: see :class:`ForwardRunner`.
        optimizer: over the model's parameters; its learning rates are the peaks.
        gradient_accumulation_steps: backward passes per step.
        max_grad_norm: gradients are clipped to this norm; 0: no clipping.
        warmup_steps: steps of the warm-up.
        num_train_optimization_steps: steps of the whole run.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        gradient_accumulation_steps: int = 1,
        device: torch.device | None = None,
        n_gpu: int = 1,
        fp16: bool = False,
        local_rank: int = -1,
        max_grad_norm: float = 1.0,
        warmup_steps: int = 0,
        num_train_optimization_steps: int = 1000000,
    ) -> None:
        super().__init__(model, device, n_gpu, fp16, local_rank)
        self.optimizer = optimizer
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.max_grad_norm = max_grad_norm
        self.global_step = 0
        self.scheduler = WarmupLinearSchedule(optimizer, warmup_steps, num_train_optimization_steps)
        self.scaler = make_scaler(self.precision, self.device)

    def initialize_fp16(self) -> None:
        """Does nothing: mixed precision needs no preparation of the model."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a pass to those of its step."""
        self.scaler.scale(loss / self.gradient_accumulation_steps).backward()

    def step(self) -> None:
        """Clip the gradients, update weights and learning rate, and clear the gradients."""
        self.scaler.unscale_(self.optimizer)
        if self.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.global_step += 1

    def save_state(self, save_directory: str | Path, epoch_id: int) -> None:
        """Write the model, and the state of optimizer and schedule (``checkpoint.bin``), to a directory."""
        directory = Path(save_directory)
        model: Any = self.model
        model.save_pretrained(directory, weights=BIN_NAME)
        content = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": epoch_id,
        }
        with atomic_write(directory / CHECKPOINT_NAME) as stream:
            torch.save(content, stream)

    def resume_from_checkpoint(self, checkpoint_dir: str | Path) -> int:
        """Restore optimizer and schedule of a ``checkpoint.bin``, also of tape-proteins 0.5; returns the next epoch.

        Peak and length of the schedule are those of this runner (bug 9 in docs/compatibility.md). States of
        tape-proteins 0.5 and ProteinLM go by position in other groups and another order of parameters; they are
        assigned by the names in the ``pytorch_model.bin`` beside them, of which the model must have the weights. Groups
        and weight decay are those of this runner's optimizer, and apex' fp32 master weights replace the weights.

        Raises:
            CheckpointError: the file is missing, damaged or something else, or its state does not fit the model.
        """
        file = Path(checkpoint_dir) / CHECKPOINT_NAME
        content = load_weights_only(file)
        if isinstance(content, dict) and "scaler" not in content:  # which save_state has always written
            return self._resume_by_name(content, file)
        try:
            _check_shapes(content["optimizer"], self.optimizer)
            self.optimizer.load_state_dict(content["optimizer"])
            self.scheduler.set_step(int(content["scheduler"]["last_epoch"]))
            self.scaler.load_state_dict(content.get("scaler") or self.scaler.state_dict())
            self.global_step = self.scheduler.last_epoch
            return int(content["epoch"]) + 1
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{file}: not the state of this optimizer and schedule ({error!r})") from error

    def _resume_by_name(self, content: dict[str, Any], file: Path) -> int:
        check_weights_file(file.parent, "tape-proteins 0.5")
        progress, moments = assign_by_name(content, file, self.model)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        ordered = [names.get(id(parameter)) for group in self.optimizer.param_groups for parameter in group["params"]]
        state = {place: moments[name] for place, name in enumerate(ordered) if name in moments}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.scheduler.set_step(progress.global_step)
        self.global_step = progress.global_step
        return progress.epoch + 1


def _check_shapes(state: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Check that the state of each parameter has its shape, which ``load_state_dict`` does not.

    Raises:
        ValueError: one has not. Or other errors, if the state is none of an optimizer.
    """
    keys = [key for group in state["param_groups"] for key in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, parameter in zip(keys, parameters, strict=True):
        for name, value in state["state"].get(key, {}).items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)} for a weight of {tuple(parameter.shape)}")


def run_train_epoch(
    epoch_id: int,
    train_loader: Any,
    runner: BackwardRunner,
    viz: TAPEVisualizer | None = None,
    num_log_iter: int = 20,
    gradient_accumulation_steps: int = 1,
) -> tuple[float, Metrics]:
    """All steps of an epoch; returns the means of loss and metrics over them.

    Args:
        epoch_id: number of the epoch, from 0, for the log.
        train_loader: batches.
        runner: the model and its optimizer.
        viz: stores the metrics of each step.
        num_log_iter: steps between log lines.
        gradient_accumulation_steps: batches per step.
    """
    viz = viz or DummyVisualizer()
    means = MetricsAccumulator(1 - 1 / num_log_iter)
    runner.train()
    with torch.enable_grad():
        for number, batch in enumerate(train_loader, start=1):
            loss, metrics = runner.forward(batch)
            runner.backward(loss)
            means.update(loss, metrics, step=False)
            if number % gradient_accumulation_steps and number != len(train_loader):
                continue
            runner.step()
            viz.log_metrics(means.step(), "train", runner.global_step)
            if runner.global_step % num_log_iter == 0:
                shown = _shown(means.loss(), means.metrics())
                logger.info("epoch %.2f, step %d: %s", epoch_id + number / len(train_loader), runner.global_step, shown)
    logger.info("training: %s", _shown(means.final_loss(), means.final_metrics()))
    return means.final_loss(), means.final_metrics()


def run_valid_epoch(
    epoch_id: int,
    valid_loader: Any,
    runner: ForwardRunner,
    viz: TAPEVisualizer | None = None,
    is_master: bool = True,
) -> tuple[float, Metrics]:
    """Loss and metrics, averaged over the batches of a split; the metrics include ``loss``."""
    means = MetricsAccumulator()
    runner.eval()
    with torch.no_grad():
        for batch in _shown_batches("validation", valid_loader, is_master):
            means.update(*runner.forward(batch))
    loss, metrics = means.final_loss(), means.final_metrics()
    logger.info("validation: %s", _shown(loss, metrics))
    metrics["loss"] = loss
    if viz is not None:
        viz.log_metrics(metrics, "val", getattr(runner, "global_step", epoch_id))
    return loss, metrics


def run_eval_epoch(eval_loader: Any, runner: ForwardRunner, is_master: bool = True) -> list[dict[str, Any]]:
    """``{"prediction", "target"}`` of each protein as numpy arrays, with the padding of its batch."""
    results = []
    runner.eval()
    with torch.no_grad():
        for batch in _shown_batches("evaluation", eval_loader, is_master):
            _, _, outputs = runner.forward(batch, return_outputs=True)
            pairs = zip(outputs[1].float().cpu().numpy(), batch["targets"].cpu().numpy(), strict=True)
            results += [{"prediction": prediction, "target": target} for prediction, target in pairs]
    return results


def _shown_batches(title: str, loader: Any, is_shown: bool) -> Iterable[Batch]:
    with progress_bar(title, len(loader), "batch", disable=not is_shown) as bar:
        for batch in loader:
            yield batch
            bar.update()


def _shown(loss: float, metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.5g}" for name, value in {"loss": loss, **metrics}.items())
