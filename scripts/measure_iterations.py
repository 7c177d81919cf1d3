#!/usr/bin/env python
"""Iterations of pretraining in a number of minutes (also ``proteinlm measure-iterations``)."""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from proteinlm.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("measure-iterations"))
