#!/usr/bin/env python
"""Print the losses of pretraining runs with the same options in different parallel layouts side by side.

python scripts/compare_losses.py SAVE_DIR SAVE_DIR ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from tape.cli.parser import ArgumentParser
from tape.errors import run_cli
from tape.report.layouts import read_layout_losses


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="SAVE_DIR", help="--save directories of the runs")
    print(read_layout_losses(parser.parse_args(arguments).runs).text())


if __name__ == "__main__":
    sys.exit(run_cli(main))
