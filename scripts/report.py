#!/usr/bin/env python
"""Evaluations -> one page: our numbers beside published ones, curves, contact maps, confusion matrices, scatter plots.

    python scripts/report.py RESULTS... [--pretraining SAVE_DIR] --out DIR

RESULTS are directories of runs, searched for eval_SPLIT.json. DIR gets report.html (one file that opens offline, on a
phone and in print), table.md (the table, and the published numbers with why they may not be compared) and table.csv
(full precision, with intervals). Simulated data are marked wherever they are shown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.errors import ConfigError, run_cli
from tape.io.atomic import atomic_directory, write_text
from tape.report.page import page
from tape.report.rows import csv_table, make_rows, markdown_published, markdown_table, read_evaluations

PAGE, TABLE, VALUES = "report.html", "table.md", "table.csv"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="directories of finetuning runs")
    parser.add_argument(
        "--pretraining", type=Path, metavar="SAVE_DIR", help="directory with pretraining's metrics.jsonl"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new, empty, or an earlier report, which is replaced"
    )
    return parser


def check_output(directory: Path) -> None:
    """The directory is replaced as a whole: nothing may be in it but an earlier report.

    Raises:
        ConfigError: names what else is there.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"--out {directory} is a file; it must be a directory's name")
    present = {child.name for child in directory.iterdir()} if directory.is_dir() else set()
    others = sorted(present - {PAGE, TABLE, VALUES})
    if others:
        raise ConfigError(f"--out {directory} holds {', '.join(others[:3])}, which is no report; choose another name")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    check_output(options.out)
    evaluations = read_evaluations(options.results)
    rows = make_rows(evaluations)
    text = markdown_table(rows)
    with atomic_directory(options.out, overwrite=True) as folder:
        write_text(folder / TABLE, text + markdown_published(evaluations))
        write_text(folder / VALUES, csv_table(rows))
        write_text(folder / PAGE, page(evaluations, options.pretraining))
    print(text)


if __name__ == "__main__":
    sys.exit(run_cli(main))
