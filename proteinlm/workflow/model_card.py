"""Writes the model card of a pretrained model, from the files of its pretraining, conversion and evaluations.

proteinlm model-card MODEL_DIR --pretraining SAVE_DIR --data_dir DATA --results RESULTS --out CARD.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tape.cli.parser import ArgumentParser
from tape.io.writing import check_output_directory, write_text
from tape.report.model_card import CardSources, model_card


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="model directory written by the converter")
    parser.add_argument("--pretraining", type=Path, required=True, metavar="SAVE_DIR", help="its --save directory")
    parser.add_argument(
        "--data_dir", type=Path, required=True, metavar="DATA", help="data that proteinlm prepare has written"
    )
    parser.add_argument("--results", type=Path, nargs="+", default=[], help="directories of finetuning runs")
    parser.add_argument("--comparisons", type=Path, nargs="+", default=[], metavar="FILE", help="of tape-compare --out")
    parser.add_argument("--command", default="", help="the command that makes the model")
    parser.add_argument("--license", default="Apache-2.0", help="license of the weights (default %(default)s)")
    parser.add_argument("--machine", default="", help="description of the machine")
    parser.add_argument(
        "--template", action="store_true", help="leave the checksum open, for scripts/bundle_model.py --card"
    )
    parser.add_argument("--name", default="", help="name by which the model is loaded (default: its directory's)")
    parser.add_argument("--limits", nargs="+", default=[], metavar="TEXT", help="what else the model can't do")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the card of the command line's model."""
    options = make_parser().parse_args(arguments)
    check_output_directory(options.out.parent, "--out")
    sources = CardSources(
        options.model,
        options.pretraining,
        options.data_dir,
        tuple(options.results),
        tuple(options.comparisons),
        options.command,
        options.license,
        options.machine,
        options.template,
        options.name,
        tuple(options.limits),
    )
    write_text(options.out, model_card(sources))
    print(options.out)
