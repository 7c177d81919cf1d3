#!/usr/bin/env python
"""Results of several runs in one report: ``python scripts/report.py RESULTS... --out DIR`` (also ``tape-report``)."""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.commands import report_command

if __name__ == "__main__":
    sys.exit(report_command())
