"""What stays in the directory of a run: the newest checkpoints, and nothing of a process that was killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tape.errors import CheckpointError

from .format import POINTER_NAME, read_metadata

_ITERATION = re.compile(r"iter_([0-9]{7,})")


@dataclass(frozen=True)
class Retention:
    """How many checkpoints of a run stay, and which are its own.

    A run that begins at an earlier iteration than a run before it in the same directory finds later checkpoints there,
    and comes past them one by one. They must not take the place of what it has written itself.

    Attributes:
        keep: so many.
        start: iteration at which this start began; checkpoints up to there count as its own.
        written: iterations that it has saved.
    """

    keep: int
    start: int | None = None
    written: frozenset[int] = frozenset()

    def is_own(self, iteration: int) -> bool:
        return self.start is None or iteration <= self.start or iteration in self.written


def remove_older(root: Path, retention: Retention) -> list[Path]:
    """Delete checkpoints so that some remain: the one that the pointer names and the newest before it, own ones first.

    Only whole directories of this format are touched, and none later than the pointer's (of a run that was turned
    back by hand). A directory loses its name first, so that one half deleted is never taken for a checkpoint.

    Returns:
        What was deleted.
    """
    text = (root / POINTER_NAME).read_text(encoding="utf-8").strip()
    current = int(text)
    numbered = [(number, path) for path in root.iterdir() if (number := _iteration(path)) is not None]
    older = sorted((retention.is_own(number), number, path) for number, path in numbered if number < current)
    removed = []
    for _, _, path in older[: max(0, len(older) - (retention.keep - 1))]:
        with contextlib.suppress(OSError):  # a checkpoint too many is no reason to stop
            away = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=root))
            os.replace(path, away / path.name)
            shutil.rmtree(away, ignore_errors=True)
            removed.append(path)
    return removed


def _iteration(path: Path) -> int | None:
    """The number of a checkpoint's directory, None for anything else."""
    match = _ITERATION.fullmatch(path.name)
    number = int(match[1]) if match is not None else 0
    # Seven digits, more from ten million on: another spelling is not what was saved as this iteration.
    if path.name != f"iter_{number:07d}" or not path.is_dir() or path.is_symlink():
        return None
    try:
        return number if read_metadata(path)["iteration"] == number else None
    except CheckpointError:
        return None


def tidy(root: Path) -> None:
    """Remove what a killed process left: half-written and half-deleted checkpoints, and replaced ones.

    A checkpoint that had stepped aside when its process was killed, before the new one took its name, returns.
    """
    for abandoned in root.glob(".iter_*.tmp"):
        shutil.rmtree(abandoned, ignore_errors=True)
    for aside in root.glob(".iter_*.old"):
        for path in aside.iterdir():
            if not (root / path.name).exists():
                os.replace(path, root / path.name)
        shutil.rmtree(aside, ignore_errors=True)
