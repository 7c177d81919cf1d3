#!/usr/bin/env python
"""From proteins to a table of results: ``bash scripts/quickstart.sh`` (also ``proteinlm quickstart``)."""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from proteinlm.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("quickstart"))
