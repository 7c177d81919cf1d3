"""Which checkpoints a run keeps: the newest ones."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pretrain.checkpoint_paths import POINTER_NAME, iteration_of_name
from tape.errors import CheckpointError
from tape.io.writing import temporary_directory

from .format import read_metadata


@dataclass(frozen=True)
class Retention:
    """How many checkpoints to keep, and which of them belong to this run.

    The directory may hold checkpoints of an earlier run that reached later iterations than the one at which this run
    starts. This run reaches their iterations one after the other, and deletes them before its own checkpoints.

    Attributes:
        keep: number of checkpoints to keep.
        start: iteration at which this run started or resumed; checkpoints up to it count as its own.
        written: iterations that this run has saved.
    """

    keep: int
    start: int | None = None
    written: frozenset[int] = frozenset()

    def is_own(self, iteration: int) -> bool:
        return self.start is None or iteration <= self.start or iteration in self.written


def remove_old_checkpoints(root: Path, retention: Retention) -> list[Path]:
    """Delete old checkpoints, those of other runs first; the pointer's and the newest before it remain.

    Only complete directories of this format are deleted, and none later than the pointer's (the pointer may have been
    set back by hand). A directory is renamed before it is deleted, so that a half-deleted one is never taken for a
    checkpoint.

    Returns:
        The deleted checkpoints.
    """
    text = (root / POINTER_NAME).read_text(encoding="utf-8").strip()
    current = int(text)
    numbered = [(number, path) for path in root.iterdir() if (number := _iteration(path)) is not None]
    older = sorted((retention.is_own(number), number, path) for number, path in numbered if number < current)
    removed = []
    for _, _, path in older[: max(0, len(older) - (retention.keep - 1))]:
        with contextlib.suppress(OSError):  # training need not stop because an old checkpoint can't be deleted
            with temporary_directory(root, path.name) as temporary:
                os.replace(path, temporary)
            removed.append(path)
    return removed


def _iteration(path: Path) -> int | None:
    """The iteration of a checkpoint directory; None for anything else."""
    number = iteration_of_name(path)
    if number is None or not path.is_dir() or path.is_symlink():
        return None
    try:
        return number if read_metadata(path)["iteration"] == number else None
    except CheckpointError:
        return None
