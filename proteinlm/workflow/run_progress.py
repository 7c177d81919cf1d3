"""How far pretraining and finetuning have come, by their own records, and the options that continue them.

Both commands end with exit code 0 after a stop signal, because their state is saved; only their records show that they
have not finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain.checkpoint_paths import find_checkpoint, iteration_of_name
from tape.errors import CheckpointError, ConfigError
from tape.io.run_layout import LATEST_NAME


def missing_iterations(save: Path, iterations: int) -> str:
    """What pretraining has not done of its ``--train-iters``, as text; empty if it has finished.

    Args:
        save: its ``--save`` directory.
        iterations: the value of ``--train-iters``.
    """
    done = _saved_iterations(save)
    return "" if done >= iterations else f"the last checkpoint is of iteration {done} of {iterations}"


def measured_iterations(file: Path) -> int:
    """The value of ``--train-iters`` in a file of scripts/measure_iterations.py.

    Raises:
        ConfigError: the file is not one of them.
    """
    words = file.read_text(encoding="utf-8").split()
    if len(words) != 2 or words[0] != "--train-iters" or not words[1].isdecimal():
        raise ConfigError(f"{file}: must contain --train-iters and a number; remove the file to measure it again")
    return int(words[1])


def resume_pretraining(save: Path) -> tuple[str, ...] | None:
    """The options that continue pretraining from its last checkpoint in ``save``; None if there is none."""
    return ("--load", str(save)) if _saved_iterations(save) else None


def _saved_iterations(save: Path) -> int:
    try:
        latest = find_checkpoint(save)
    except CheckpointError:
        latest = None
    return 0 if latest is None else iteration_of_name(latest) or 0


def resume_finetuning(run: Path) -> tuple[str, ...] | None:
    """The options that continue the finetuning run in this directory; None if it has not saved a state."""
    return ("--from_pretrained", str(run), "--resume_from_checkpoint") if (run / LATEST_NAME).is_file() else None


def missing_epochs(run: Path, epochs: int, patience: int = -1, metric: str = "loss") -> str:
    """What finetuning has not done of its epochs, as text; empty if it has finished.

    Args:
        run: directory of the run.
        epochs: the value of ``--num_train_epochs``.
        patience: the value of ``--patience``, after which the run has stopped early; not positive: it does not.
        metric: the value of ``--metric_for_best_model``.
    """
    from tape.finetuning.run_directory import read_history  # imports torch

    try:
        history = read_history(run)
    except CheckpointError:
        history = []
    done = history[-1]["epoch"] + 1 if history else 0
    if done >= epochs or 0 < patience <= _epochs_without_improvement(history, metric):
        return ""
    return f"{done} of {epochs} epochs"


def _epochs_without_improvement(history: list[dict[str, Any]], metric: str) -> int:
    from tape.finetuning.best_epoch import criterion_of

    found = {record["epoch"]: criterion_of(record["valid"], metric) for record in history if record.get("valid")}
    defined = {epoch: value for epoch, value in found.items() if value is not None}
    return history[-1]["epoch"] - min(defined, key=lambda epoch: defined[epoch]) if defined else 0
