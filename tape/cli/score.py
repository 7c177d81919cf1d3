"""``tape-score``: effects of variants from a pretrained model, without finetuning."""

from __future__ import annotations

import argparse
from pathlib import Path

from tape.inference.config import ScoreConfig
from tape.inference.variants import METHODS
from tape.io.records import RecordOptions
from tape.runtime.process import process_context

from .options import (
    Arguments,
    add_column_options,
    add_format,
    add_optional_model_directory,
    create_base_parser,
    inference_config,
    model_source,
    note_output_dir,
    parse_with_default_model,
    process_config,
)
from .parser import ArgumentParser


def run_score(arguments: Arguments = None) -> Path:
    """Write the scores of variants; returns the file written.

    Raises:
        ProteinLMError: options, variants or model can't be used.
    """
    config = score_config(arguments)
    from tape.inference.score import score_file

    with process_context(config.process) as context:
        return score_file(config, context)


def score_config(arguments: Arguments = None) -> ScoreConfig:
    """Configuration of ``tape-score``."""
    options = parse_with_default_model(create_score_parser(), arguments)
    note_output_dir(options, f"the scores are written to {options['out_file']}")
    return ScoreConfig(
        model=model_source(options),
        variants_file=options["variants_file"],
        out_file=Path(options["out_file"]),
        wild_type=options["wild_type"],
        methods=tuple(options["methods"]),
        first_residue=options["first_residue"],
        variants_format=options["format"],
        mutation_column=options["mutation_column"],
        wild_type_columns=RecordOptions(None, options["sequence_column"], options["id_column"]),
        compare=options["compare"],
        inference=inference_config(options),
        process=process_config(options),
    )


def create_score_parser() -> argparse.ArgumentParser:
    """``model_type variants_file out_file [from_pretrained]`` and the options of scoring."""
    parser = ArgumentParser(
        prog="tape-score",
        description="Score variants of a protein with a pretrained model (Meier et al. 2021).",
        parents=[create_base_parser()],
    )
    parser.add_argument(
        "variants_file",
        help="table with a column mutations (or mutant), such as A123G:V7L, and a column protein if there are several",
    )
    parser.add_argument("out_file", help=".csv to write: the table with a column per method")
    add_optional_model_directory(parser)
    parser.add_argument(
        "--wild_type", required=True, metavar="FILE|SEQUENCE", help="FASTA or other sequence file, or the residues"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=["wild_type_marginal", "masked_marginal"],
        help="scores to compute (default wild_type_marginal masked_marginal); the two pseudo-likelihood scores need one"
        " forward pass per residue",
    )
    parser.add_argument(
        "--first_residue", type=int, default=1, help="number of the sequence's first residue (default %(default)s)"
    )
    parser.add_argument(
        "--mutation_column", metavar="NAME", help="column with the mutations (default: mutations or mutant)"
    )
    group = parser.add_argument_group("files")
    add_format(group, "variants_file")
    add_column_options(group)  # of the wild type's file
    parser.add_argument("--compare", metavar="COLUMN", help="log Spearman's rho between each score and this column")
    parser.add_argument("--batch_size", type=int, default=32, help="sequences per forward pass (default %(default)s)")
    parser.set_defaults(task="masked_language_modeling")
    return parser
