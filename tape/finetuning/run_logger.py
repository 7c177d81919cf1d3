"""Where the numbers and models of a run go: its directory and tensorboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tape.evaluation.records import finite
from tape.tokenizers import TAPETokenizer

from .checkpoint import TrainerState, save_epoch
from .run_directory import BEST_NAME, LATEST_NAME, RunDirectory


class RunLogger:
    """Writes what a :class:`tape.finetuning.trainer.Finetuner` reports; exists on rank 0 alone (defect 12).

    Args:
        run: the run's directory.
        log_dir: tensorboard's files go to ``log_dir/NAME_OF_THE_RUN``.
        tokenizer: vocabulary the model is trained with.
        provenance: where the weights come from; each saved epoch adds its number.
    """

    def __init__(self, run: RunDirectory, log_dir: Path, tokenizer: TAPETokenizer, provenance: dict[str, Any]) -> None:
        from tensorboardX import SummaryWriter  # here: evaluation has no use for it

        self._run, self._tokenizer, self._provenance = run, tokenizer, provenance
        self._writer = SummaryWriter(str(log_dir / run.path.name))

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Tensorboard values ``group/name``."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def epoch(self, record: dict[str, Any]) -> None:
        """One line of the run's history."""
        for group in ("train", "valid"):
            if record[group] is not None:
                record = {**record, group: {name: finite(value) for name, value in record[group].items()}}
        self._run.add_history(record)

    def save(
        self, model: nn.Module, training_state: dict[str, Any], progress: TrainerState, loss: float | None
    ) -> None:
        """Save an epoch, then let the pointers name it."""
        save_epoch(
            self._run.epoch_directory(progress.epoch),
            model,
            training_state,
            progress,
            tokenizer=self._tokenizer,
            provenance={**self._provenance, "epoch": progress.epoch, "step": progress.global_step},
        )
        self._run.point_to(LATEST_NAME, progress.epoch, "loss", None if loss is None else finite(loss))
        self.point_to_best(progress)

    def point_to_best(self, progress: TrainerState) -> None:
        """Let ``best.json`` name the best of the saved epochs, if any was validated."""
        if progress.best_saved_loss is not None:
            self._run.point_to(BEST_NAME, progress.best_saved_epoch, "loss", progress.best_saved_loss)

    def close(self) -> None:
        self._writer.close()
