"""Refuses ``--load`` of a model or checkpoint that is not a pretraining run's, and names the way on."""

from __future__ import annotations

from pathlib import Path

from pretrain.checkpoint_paths import METADATA_NAME, POINTER_NAME
from tape.errors import CheckpointError
from tape.io.checkpoint_formats import TAPE_RUN, CheckpointFormat, find_weights_file, recognize_format

_EXPECTED = (
    "--load takes the directory that an earlier run of pretrain_tape.py had as --save (iter_... directories and "
    f"{POINTER_NAME})"
)
_CONVERT = "proteinlm convert -src {} -out MODEL_DIRECTORY"


def refuse_other_format(path: Path) -> None:
    """Refuse files, and directories of a known format other than pretraining's. Directories of no format pass.

    Raises:
        CheckpointError: names the format, and what reads it.
    """
    if (path / METADATA_NAME).is_file() and not (path / "common.pt").is_file():
        return
    found = recognize_format(path)
    if found is not None:
        raise CheckpointError(
            f"{path}: {found.name}, which a pretraining run can't resume from. {_EXPECTED}. {_next_step(found, path)}"
        )
    if path.is_file():
        raise CheckpointError(f"{path}: a file, not a directory of checkpoints. {_EXPECTED}")


def refuse_save_in_other_format(directory: Path) -> None:
    """Refuse to save a run's checkpoints in a directory of a known format.

    They would replace Megatron-LM's pointer to its checkpoint, and could not be resumed from there.

    Raises:
        CheckpointError: names the format.
    """
    found = recognize_format(directory)
    if found is not None:
        raise CheckpointError(f"--save {directory}: {found.name}; choose a directory of its own for this run")


def refuse_other_weights(directory: Path) -> None:
    """Refuse a directory without checkpoints of pretraining that has other weights, of whatever format.

    A run that saves to the same directory would start from random weights instead.

    Raises:
        CheckpointError: names a file.
    """
    file = find_weights_file(directory)
    if file is not None:
        raise CheckpointError(
            f"{directory}: has no checkpoint of pretrain_tape.py, but {file.relative_to(directory)}. {_EXPECTED}. To"
            " start from a model, give its path to --load with --finetune, or to --pretrained-checkpoint; to start from"
            " random weights, choose another directory"
        )


def _next_step(found: CheckpointFormat, path: Path) -> str:
    """What can be done with it instead."""
    if not found.is_model:
        return "A corpus is given as --data-path, without the suffix"
    if found is TAPE_RUN:
        return f"{found.reader}; to pretrain a new model, leave out --load"
    if found.export is not None:
        return f"To start from its weights, {found.export}, and add --finetune"
    start = "To start a new run with its weights, add --finetune"
    if found.reader is not None:
        return f"{start}; {found.reader}"
    return f"{start}; for finetuning and evaluation, convert it: {_CONVERT.format(path)}"
