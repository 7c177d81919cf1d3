"""How far pretraining and finetuning have come, by their own records.

Both commands end with exit code 0 after a stop signal, because their state is saved; only their records show that they
have not finished.
"""

from __future__ import annotations

from pathlib import Path

from tape.errors import ProteinLMError
from tape.io.json_files import read_json_lines

# Names in the --save directory of pretraining and in a finetuning run; the modules that write them import torch.
_POINTER_NAME = "latest_checkpointed_iteration.txt"
_HISTORY_NAME = "metrics.jsonl"


def missing_iterations(save: Path, iterations: int) -> str:
    """What pretraining has not done of its ``--train-iters``, as text; empty if it has finished.

    Args:
        save: its ``--save`` directory.
        iterations: the value of ``--train-iters``.
    """
    pointer = save / _POINTER_NAME
    text = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""
    done = int(text) if text.isdecimal() and text.isascii() else 0
    return "" if done >= iterations else f"the last checkpoint is of iteration {done} of {iterations}"


def missing_epochs(run: Path, epochs: int) -> str:
    """What finetuning without early stopping has not done of its epochs, as text; empty if it has finished.

    Args:
        run: directory of the run.
        epochs: the value of ``--num_train_epochs``.
    """
    try:
        history = read_json_lines(run / _HISTORY_NAME, integers=["epoch"])
    except ProteinLMError:
        history = []
    done = history[-1]["epoch"] + 1 if history else 0
    return "" if done >= epochs else f"{done} of {epochs} epochs"
