#!/usr/bin/env python
"""Relatives of test proteins in training data: ``python scripts/leakage.py --task TASK`` (also ``tape-leakage``)."""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.commands import leakage_command

if __name__ == "__main__":
    sys.exit(leakage_command())
