#!/usr/bin/env python
"""Losses of several layouts side by side.

    python scripts/compare_losses.py SAVE_DIR SAVE_DIR ...

The installed command is ``proteinlm compare-losses``.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from proteinlm.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("compare-losses"))
