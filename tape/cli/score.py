"""``tape-score``: effects of variants from a pretrained model, without finetuning."""

from __future__ import annotations

import argparse
from pathlib import Path

from tape.errors import ConfigError
from tape.inference.config import ScoreConfig
from tape.inference.variants import METHODS, SINGLE_METHODS
from tape.io.records import RecordOptions
from tape.runtime.process import process_context

from .options import (
    Arguments,
    Options,
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
    _check_kind(options)
    return ScoreConfig(
        model=model_source(options),
        variants_file=options["variants_file"],
        out_file=Path(options["out_file"]),
        wild_type=options["wild_type"] or "",
        methods=_methods(options),
        all_singles=options["all_singles"],
        plot=None if options["plot"] is None else Path(options["plot"]),
        strict=options["strict"],
        first_residue=options["first_residue"],
        variants_format=options["format"],
        mutation_column=options["mutation_column"],
        wild_type_columns=RecordOptions(None, options["sequence_column"], options["id_column"]),
        compare=options["compare"],
        length=options["length"],
        inference=inference_config(options),
        process=process_config(options),
    )


def _check_kind(options: Options) -> None:
    """Check that the options belong to a table of variants, or to all single substitutions, and write a .csv.

    Raises:
        ConfigError: one belongs to the other, there is no wild type, or the output has another suffix.
    """
    if Path(options["out_file"]).suffix not in ("", ".csv"):
        raise ConfigError(f"{options['out_file']}: scores are written as CSV; give a name that ends in .csv")
    if options["all_singles"]:
        for name in ("wild_type", "mutation_column", "compare", "strict"):
            if options[name]:
                raise ConfigError(f"--{name} belongs to a table of variants; with --all-singles, give proteins instead")
    elif options["plot"] is not None:
        raise ConfigError("--plot draws all single substitutions; give --all-singles with it")
    elif options["wild_type"] is None:
        raise ConfigError(
            f"{options['variants_file']}: give the protein of the variants as --wild_type FILE or SEQUENCE;"
            " --all-singles scores all single substitutions of a file's proteins"
        )


def _methods(options: Options) -> tuple[str, ...]:
    if options["methods"] is None:
        return ("masked_marginal",) if options["all_singles"] else ("wild_type_marginal", "masked_marginal")
    wrong = [name for name in options["methods"] if options["all_singles"] and name not in SINGLE_METHODS]
    if wrong:
        raise ConfigError(
            f"--methods {wrong[0]}: needs a forward pass or more for each of the 19 substitutions of a residue;"
            f" --all-singles has {' and '.join(SINGLE_METHODS)}"
        )
    return tuple(options["methods"])


def create_score_parser() -> argparse.ArgumentParser:
    """``model_type variants_file out_file [from_pretrained]`` and the options of scoring."""
    parser = ArgumentParser(
        prog="tape-score",
        description="Score variants of a protein with a pretrained model (Meier et al. 2021): those of a table, or all"
        " single substitutions. Exit status: 0 if at least one variant is scored; 1 for an error, such as none, or with"
        " --strict any variant that can't be scored; 2 for a wrong command line.",
        parents=[create_base_parser()],
    )
    parser.add_argument(
        "variants_file",
        help="table with a column mutations, mutation or mutant (A123G:V7L or HGVS, such as p.Ala123Gly or"
        " p.Ala4_Gly6del) or mutated_sequence, and a column protein if there are several; with --all-singles, the"
        " proteins: FASTA or other sequence file, or the residues of one",
    )
    parser.add_argument(
        "out_file",
        help=".csv to write: the table with a column per method, the method of each variant, and why it is not_scored",
    )
    add_optional_model_directory(parser)
    parser.add_argument("--wild_type", metavar="FILE|SEQUENCE", help="FASTA or other sequence file, or the residues")
    parser.add_argument(
        "--all-singles",
        "--all_singles",
        action="store_true",
        help="score every single substitution of the proteins: a table of protein, mutation and score",
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="with --all-singles: heat map of the first method's scores, .png or .svg; one for each of several proteins"
        " (pip install 'proteinlm[plots]')",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        help="scores to compute (default wild_type_marginal masked_marginal; with --all-singles, masked_marginal); the"
        " two pseudo-likelihood scores need one forward pass per residue, and are those of insertions and deletions",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse a table with a variant that can't be scored, instead of marking it",
    )
    parser.add_argument(
        "--length",
        choices=("error", "window"),
        default="window",
        help="proteins longer than the model's position table: read in overlapping windows, each residue in the window"
        " whose middle is nearest (window), or stop with an error (error). Default %(default)s",
    )
    parser.add_argument(
        "--first_residue", type=int, default=1, help="number of the sequence's first residue (default %(default)s)"
    )
    parser.add_argument(
        "--mutation_column",
        metavar="NAME",
        help="column with the mutations, or mutated_sequence (default: the one that exists)",
    )
    group = parser.add_argument_group("files")
    add_format(group, "variants_file")
    add_column_options(group)  # of the wild type's file
    parser.add_argument(
        "--compare",
        metavar="COLUMN",
        help="log Spearman's rho between each score and this column; variants without a value are left out and counted",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="sequences per forward pass (default %(default)s)")
    parser.set_defaults(task="masked_language_modeling")
    return parser
