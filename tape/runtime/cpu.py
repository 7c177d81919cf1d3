"""Processor cores that this process may use: all of the machine's, or those that it was bound to."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of cores, at least 1; those of ``taskset``, Slurm or a container's cpuset where the system tells them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
