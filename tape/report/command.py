"""The report's command line: evaluations -> one HTML page and tables.

    python scripts/report.py RESULTS... [--pretraining SAVE_DIR] [--layouts SAVE_DIR ...] --out DIR

RESULTS are run directories, searched for eval_SPLIT.json. DIR gets report.html (one file that opens offline, on a phone
and in print: results, curves, contact maps, confusion matrices, scatter and strip charts), table.md (the table, and the
published numbers with the reasons why they are not comparable) and table.csv (full precision, with intervals). Paired
differences of every model from random weights, if these were evaluated, are in the page, in table.md and in
differences.csv; metrics in bins of identity to training data (tape-leakage), if there are any, in leakage.csv.
Simulated data are marked wherever they are shown, and published numbers are beside evaluations on the same data only.
The installed command is `tape-report`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tape.cli.parser import ArgumentParser
from tape.io.writing import atomic_directory, check_output_directory, check_replaceable, write_text
from tape.report.differences import Differences
from tape.report.layouts import read_layout_losses
from tape.report.leakage import csv_leakage, markdown_leakage
from tape.report.page import page
from tape.report.rows import csv_table, make_rows, markdown_published, markdown_table, read_evaluations

PAGE, TABLE, VALUES, DIFFERENCES, LEAKAGE = "report.html", "table.md", "table.csv", "differences.csv", "leakage.csv"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report of the command line's directories and print its table."""
    options = make_parser().parse_args(arguments)
    check_replaceable(options.out, {PAGE, TABLE, VALUES, DIFFERENCES, LEAKAGE}.__contains__, "--out")
    check_output_directory(options.out, "--out")
    evaluations = read_evaluations(options.results)
    layouts = None if options.layouts is None else read_layout_losses(options.layouts)
    rows = make_rows(evaluations)
    differences = Differences.of(evaluations)
    text = markdown_table(rows) + differences.markdown() + markdown_leakage(evaluations)
    with atomic_directory(options.out, overwrite=True) as folder:
        write_text(folder / TABLE, text + markdown_published(evaluations))
        write_text(folder / VALUES, csv_table(rows))
        for name, content in ((DIFFERENCES, differences.csv()), (LEAKAGE, csv_leakage(evaluations))):
            if content:
                write_text(folder / name, content)
        write_text(folder / PAGE, page(evaluations, differences, options.pretraining, layouts))
    print(text)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="directories of finetuning runs")
    parser.add_argument(
        "--pretraining", type=Path, metavar="SAVE_DIR", help="pretraining's --save directory, with its metrics.jsonl"
    )
    parser.add_argument(
        "--layouts",
        nargs="+",
        type=Path,
        metavar="SAVE_DIR",
        help="--save directories of pretraining runs in different parallel layouts, to show their losses side by side",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="output directory: new, empty, or an earlier report, which is replaced",
    )
    return parser
