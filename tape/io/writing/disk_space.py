"""Free space of a file system, and numbers of bytes for people."""

from __future__ import annotations

import shutil
from pathlib import Path

BLOCK_BYTES = 4096
"""Size of a block in most file systems: with less free space, nothing can be written but empty files."""


def free_bytes(path: Path) -> int:
    """Free bytes on the file system of ``path``, which need not exist yet."""
    return shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: Path) -> Path:
    """The path itself if it exists, else the nearest of its parents that does."""
    absolute = path.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.exists())


def format_bytes(number: int) -> str:
    """A number of bytes for people: ``2470000000`` -> ``2.47 GB``."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.2f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"


def describe_space(path: Path, needed: int | None = None) -> str:
    """``2.00 MB are needed, 1.05 MB are free``; without ``needed``, the second part only."""
    free = f"{format_bytes(free_bytes(path))} are free"
    return free if needed is None else f"{format_bytes(needed)} are needed, {free}"
