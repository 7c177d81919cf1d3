"""Number of CPU cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of CPU cores in the affinity mask (set by ``taskset``, Slurm or a container), or else of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
