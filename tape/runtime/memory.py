"""The most memory that this process held, and giving back what it holds no longer.

``getrusage`` says more than a process held: Linux hands a process's largest resident set on to the program that it
starts, so that a child of a process that held 2 GB reports 2 GB however little it needs.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_PEAK = "VmHWM:"
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE = 1 << 20


def peak_memory() -> int:
    """Largest resident set of this program so far in bytes, mapped pages of files counted in.

    Where the system does not tell it apart (not Linux), at least that of the program this process ran before.
    """
    lines = _STATUS.read_text(encoding="utf-8").splitlines() if _STATUS.is_file() else []
    own = next((line for line in lines if line.startswith(_PEAK)), None)
    if own is not None:
        return int(own.split()[1]) * 1024  # stated in "kB", which are KiB
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def return_large_blocks() -> None:
    """From now on, blocks of 1 MiB and more go back to the system when they are freed.

    By default glibc keeps blocks of up to 32 MiB in its heap, and what is allocated between them keeps the heap from
    shrinking: weights read one after the other took twice the memory of those in use. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
