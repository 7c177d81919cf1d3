#!/usr/bin/env python
"""TAPE's published data sets, verified: ``bash scripts/download_data.sh`` (also ``proteinlm download``)."""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from proteinlm.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("download"))
