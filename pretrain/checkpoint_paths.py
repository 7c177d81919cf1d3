"""Where the checkpoints of a ``--save`` directory are; without torch, for programs that only look for them.

``SAVE/latest_checkpointed_iteration.txt``     the pointer: number of the last iteration that was saved
``SAVE/iter_0000100/metadata.json``            the checkpoint of an iteration
``SAVE/.iter_0000100.XXXXXXXX.old/iter_0000100/``  one that a process was replacing when it was killed
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tape.errors import CheckpointError
from tape.io.digits import natural_number

POINTER_NAME = "latest_checkpointed_iteration.txt"
METADATA_NAME = "metadata.json"
_ITERATION = re.compile(r"iter_([0-9]{7,})")


def checkpoint_name(iteration: int) -> str:
    """Name of the directory of an iteration's checkpoint, with seven digits or more, as in Megatron-LM."""
    return f"iter_{iteration:07d}"


def iteration_of_name(path: Path) -> int | None:
    """The iteration in the name of a checkpoint directory; None for another name."""
    match = _ITERATION.fullmatch(path.name)
    number = int(match[1]) if match is not None else 0
    # Names have seven digits, more from ten million on; a name with other padding was not written by this code.
    return number if path.name == checkpoint_name(number) else None


def checkpoint_path(root: Path, iteration: int) -> Path:
    """Where an iteration's checkpoint is, or would be: aside, if a process was killed while it replaced it."""
    path = root / checkpoint_name(iteration)
    return path if path.exists() else next(root.glob(f".{path.name}.*.old/{path.name}"), path)


def numbered_paths(root: Path) -> dict[int, Path]:
    """The directory of each iteration's checkpoint, complete or not, by iteration; as :func:`checkpoint_path`."""
    paths = [*root.glob(".iter_*.old/iter_*"), *root.glob("iter_*")]
    return {number: path for path in paths if (number := iteration_of_name(path)) is not None and path.is_dir()}


def find_checkpoint(directory: str | os.PathLike[str], iteration: int | None = None) -> Path | None:
    """The checkpoint to read, or None when the directory has none yet.

    Args:
        directory: the run's checkpoint directory, or one ``iter_...`` directory in it, which is then the checkpoint.
        iteration: which checkpoint; None: the one that the pointer names.

    Raises:
        CheckpointError: the pointer is unreadable, or the checkpoint does not exist.
    """
    root = Path(directory)
    if root.exists() and not root.is_dir():
        raise CheckpointError(f"{root}: a file, not a directory of checkpoints")
    if (root / METADATA_NAME).is_file():
        return root
    pointer = root / POINTER_NAME
    if iteration is None:
        if not pointer.exists():
            return None
        text = pointer.read_text(encoding="utf-8", errors="replace").strip()
        iteration = natural_number(text)
        if iteration is None:
            raise CheckpointError(f"{pointer}: should hold the number of an iteration, not {text[:40]!r}")
    path = checkpoint_path(root, iteration)
    if not (path / METADATA_NAME).is_file():
        raise CheckpointError(f"{path}: no checkpoint there ({METADATA_NAME} is missing)")
    return path
