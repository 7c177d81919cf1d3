"""How much room a checkpoint takes, and whether it is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from tape.errors import CheckpointError

from .collective_errors import GatheringRanks

# What torch's serialisation adds to a tensor (measured: 1.2 to 1.6 kB), and index and metadata.
_BYTES_A_TENSOR = 2048
_BYTES_A_CHECKPOINT = 65536


def checkpoint_bytes(tensors: dict[str, Any], ranks: GatheringRanks) -> int:
    """About how many bytes a checkpoint of these tensors takes, the parts of all ranks together.

    A tensor that several ranks hold (a part each, or copies) is written once.
    """
    sizes: dict[str, int] = {}
    for part in ranks.gather({name: _tensor_bytes(value) for name, value in tensors.items()}):
        sizes.update(part)
    return sum(sizes.values()) + _BYTES_A_TENSOR * len(sizes) + _BYTES_A_CHECKPOINT


def _tensor_bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()  # of a DTensor: of the whole


def free_bytes(directory: Path) -> int:
    """Bytes that may still be written where ``directory`` is, or will be."""
    existing: Iterable[Path] = (directory.absolute(), *directory.absolute().parents)
    return shutil.disk_usage(next(path for path in existing if path.exists())).free


def require_space(directory: Path, needed: int) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        CheckpointError: less than ``needed`` bytes are free. Names both.
    """
    free = free_bytes(directory)
    if free < needed:
        raise CheckpointError(f"the disk is too full: {readable(needed)} are needed, {readable(free)} are free")


def early_warning(directory: Path, needed: int, kept: int) -> str | None:
    """A line when the checkpoints that will stand side by side don't fit; said at the start, hours before.

    Args:
        directory: of the checkpoints.
        needed: bytes of one.
        kept: how many will stand there at most, the one being written included.
    """
    free = free_bytes(directory)
    if free >= needed * kept:
        return None
    return (
        f"WARNING: {directory} has {readable(free)} free, and {kept} checkpoints of {readable(needed)} will stand "
        "there; make room, or keep fewer with --keep-last"
    )


def readable(number: int) -> str:
    """``2470000000`` -> ``2.47 GB``."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.2f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"
