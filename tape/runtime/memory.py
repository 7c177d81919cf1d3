"""Peak memory of this process, and returning freed memory to the system.

``getrusage`` overestimates the peak: on Linux, a program inherits the peak of the process that started it. A child of a
process that used 2 GB reports 2 GB, however little it uses itself.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE = 1 << 20


def peak_memory() -> int:
    """Peak resident set size of this program in bytes, including mapped pages of files.

    On systems other than Linux, it may be that of the parent process, if that is larger.
    """
    own = _status("VmHWM")
    if own is not None:
        return own
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_memory() -> int:
    """Resident set size of this process in bytes; 0 where the system does not tell."""
    return _status("VmRSS") or 0


def _status(name: str) -> int | None:
    """A field of Linux's /proc/self/status in bytes; None where there is none."""
    lines = _STATUS.read_text(encoding="utf-8").splitlines() if _STATUS.is_file() else []
    own = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if own is None else int(own.split()[1]) * 1024  # the unit "kB" of this file is KiB


def return_large_blocks() -> None:
    """Make glibc return freed blocks of 1 MiB and more to the system; no effect with other C libraries.

    By default, glibc allocates blocks of up to 32 MiB on its heap, which can't shrink below later allocations. Loading
    weights one after the other took twice the memory of those in use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
