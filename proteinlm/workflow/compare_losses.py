"""Print the losses of pretraining runs with the same options in different parallel layouts side by side.

proteinlm compare-losses SAVE_DIR SAVE_DIR ...
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tape.cli.parser import ArgumentParser
from tape.report.layouts import read_layout_losses


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    print(read_layout_losses(make_parser().parse_args(arguments).runs).text())


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="SAVE_DIR", help="--save directories of the runs")
    return parser
