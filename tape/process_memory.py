"""The most memory that this process held.

``getrusage`` alone says more: Linux keeps a process's largest resident set when it starts another program, so that a
child of a process that held 2 GB reports 2 GB however little it needs.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_PEAK = "VmHWM:"


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
