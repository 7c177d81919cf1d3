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

from scripts.report_page import page
from scripts.report_rows import csv_table, make_rows, markdown_published, markdown_table, read_evaluations
from tape.atomic_files import atomic_directory, write_text
from tape.errors import run_cli


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="directories of finetuning runs")
    parser.add_argument(
        "--pretraining", type=Path, metavar="SAVE_DIR", help="directory with pretraining's metrics.jsonl"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="made anew")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    evaluations = read_evaluations(options.results)
    rows = make_rows(evaluations)
    text = markdown_table(rows)
    with atomic_directory(options.out, overwrite=True) as folder:
        write_text(folder / "table.md", text + markdown_published(evaluations))
        write_text(folder / "table.csv", csv_table(rows))
        write_text(folder / "report.html", page(evaluations, options.pretraining))
    print(text)


if __name__ == "__main__":
    sys.exit(run_cli(main))
