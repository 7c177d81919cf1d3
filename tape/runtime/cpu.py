"""The CPU: number of cores that this process may use, and settings of its allocator."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
import threading
import time
from collections.abc import Callable

from .memory import resident_memory

# Parameters of glibc's mallopt (malloc.h), and the environment variables that set them.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
_NEVER = 2**31 - 1
_SECONDS, _SMALLEST = 20.0, 1 << 30  # between releases, and bytes of memory from which on there are any
_RELEASING = "release of free memory"


def usable_cores() -> int:
    """Number of CPU cores in the affinity mask (set by ``taskset``, Slurm or a container), or else of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allocator_variables() -> dict[str, str]:
    """Environment variables by which a new process allocates memory with TCMalloc, if it is installed; else empty.

    glibc looks for a block of the right size among thousands of free ones, which takes up to a fifth of a finetuning
    step on a CPU (docs/benchmarks.md). A user's settings of the allocator, and other preloaded libraries, are left as
    they are.
    """
    if sys.platform != "linux" or any(name in os.environ for name in ("LD_PRELOAD", *_VARIABLES)):
        return {}
    found = ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library("tcmalloc")
    return {} if found is None else {"LD_PRELOAD": found}


def configure_cpu() -> None:
    """Make this process, which will compute on a CPU, reuse freed memory instead of returning it to the system.

    glibc maps large blocks anew for every allocation, and the system then zeroes each page at its first use. In a
    training step on a CPU, this takes as long as the operations that write the blocks. A user's settings of the
    allocator in the environment, and allocators other than glibc's, are left as they are.

    The price is memory: freed blocks that are too small for the next request stay in the process. After five minutes of
    pretraining a model of a million parameters, 1.4 of 3.2 GB were free. A thread therefore returns what is free every
    20 seconds, which the next step maps again. ``MALLOC_TRIM_THRESHOLD_=131072`` in the environment returns it at once.
    """
    if any(name in os.environ for name in _VARIABLES):
        return
    try:
        library = ctypes.CDLL(None)
        set_option, release = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):  # musl, macOS
        return
    set_option(_M_MMAP_MAX, 0)
    set_option(_M_TRIM_THRESHOLD, _NEVER)
    if not any(thread.name == _RELEASING for thread in threading.enumerate()):
        threading.Thread(target=_release, args=(release,), name=_RELEASING, daemon=True).start()


def _release(release: Callable[[int], int]) -> None:
    """Return free memory of a large process from time to time; ``ctypes`` lets other threads run meanwhile."""
    while True:
        time.sleep(_SECONDS)
        if resident_memory() > _SMALLEST:
            release(0)
