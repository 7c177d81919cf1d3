#!/usr/bin/env python
"""Runs a command that gets SIGTERM when the process that started it ends, by kill -9 too (Linux).

    python run_with_parent.py PID COMMAND ...

PID is the process that starts this one. The command replaces this process; the parent-death signal outlasts that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tape.errors import print_error

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Set the parent-death signal and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the call above
        sys.exit(128 + signal.SIGTERM)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print_error(f"{command[0]}: {error.strerror}")
        sys.exit(1)


if __name__ == "__main__":
    main()
