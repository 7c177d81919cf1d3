"""How far pretraining and finetuning have come, by their own records.

Both commands end with exit code 0 after a stop signal, because their state is saved; only their records show that they
have not finished.
"""

from __future__ import annotations

from pathlib import Path

from tape.errors import CheckpointError


def missing_iterations(save: Path, iterations: int) -> str:
    """What pretraining has not done of its ``--train-iters``, as text; empty if it has finished.

    Args:
        save: its ``--save`` directory.
        iterations: the value of ``--train-iters``.
    """
    from pretrain.checkpointing.format import find_checkpoint  # imports torch, which printing the plan does not need
    from pretrain.checkpointing.retention import iteration_of_name

    try:
        latest = find_checkpoint(save)
    except CheckpointError:
        latest = None
    done = 0 if latest is None else iteration_of_name(latest) or 0
    return "" if done >= iterations else f"the last checkpoint is of iteration {done} of {iterations}"


def missing_epochs(run: Path, epochs: int) -> str:
    """What finetuning without early stopping has not done of its epochs, as text; empty if it has finished.

    Args:
        run: directory of the run.
        epochs: the value of ``--num_train_epochs``.
    """
    from tape.finetuning.run_directory import read_history  # imports torch

    try:
        history = read_history(run)
    except CheckpointError:
        history = []
    done = history[-1]["epoch"] + 1 if history else 0
    return "" if done >= epochs else f"{done} of {epochs} epochs"
