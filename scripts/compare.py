#!/usr/bin/env python
"""Two evaluated runs on the same proteins: ``python scripts/compare.py RUN OTHER_RUN`` (also ``tape-compare``)."""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.commands import compare_command

if __name__ == "__main__":
    sys.exit(compare_command())
