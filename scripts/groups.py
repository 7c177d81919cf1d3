#!/usr/bin/env python
"""Groups of test proteins, such as families: ``python scripts/groups.py --task TASK`` (also ``tape-groups``)."""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.commands import groups_command

if __name__ == "__main__":
    sys.exit(groups_command())
