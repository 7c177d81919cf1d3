"""``tape-leakage``: the highest identity of each test protein to the data that a model was trained on."""

from __future__ import annotations

from pathlib import Path

from tape.leakage.config import METHODS, LeakageConfig, SearchSettings
from tape.runtime.cpu import usable_cores

from .options import (
    Arguments,
    add_column_options,
    add_format,
    log_level,
    parse_given,
    record_options,
)
from .parser import ArgumentParser
from .protein_files import add_test_proteins, check_options_of_task, in_first_process
from .types import positive_float, positive_int, unit_interval


def run_leakage(arguments: Arguments = None) -> Path | None:
    """Search for the relatives of test proteins and write the table; returns the file written.

    Of several processes that a launcher started, only the first one searches; the others return None.

    Raises:
        ProteinLMError: options or files can't be used, or the search is not possible.
    """
    config = leakage_config(arguments)

    def measure() -> Path:
        from tape.leakage.measure import measure_leakage

        return measure_leakage(config)

    return in_first_process("tape-leakage", config.log_level, measure)


def leakage_config(arguments: Arguments = None) -> LeakageConfig:
    """Configuration of ``tape-leakage``.

    Raises:
        ConfigError: an option belongs to another that is missing.
    """
    options, given = parse_given(create_leakage_parser(), arguments)
    check_options_of_task(options, given)
    defaults = SearchSettings()
    settings = SearchSettings(
        e_value=options["e_value"],
        coverage=options["coverage"],
        sensitivity=options["sensitivity"],
        candidates=defaults.candidates,
        alignments=defaults.alignments,
        threads=options["threads"] or usable_cores(),
    )
    return LeakageConfig(
        test=options["test"],
        task=options["task"],
        split=options["split"],
        data_dir=options["data_dir"],
        against=tuple(options["against"]),
        output=options["output"],
        records=record_options(options),
        method=options["method"],
        settings=settings,
        log_level=options["log_level"],
    )


def create_leakage_parser() -> ArgumentParser:
    """``TEST --against TRAIN``, or ``--task`` and ``--split``, and the options of the search."""
    defaults = SearchSettings()
    parser = ArgumentParser(
        prog="tape-leakage",
        description="Write the highest sequence identity of each test protein to the data that a model was trained on;"
        " tape-eval then reports its metrics in bins of it.",
    )
    add_test_proteins(parser, "instead of TEST: compare a split of this task with its split train")
    parser.add_argument(
        "--against",
        "--corpus",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="proteins that the model was trained on: finetuning data, pretraining corpus; any number of times",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="table to write (default with --task: leakage_SPLIT.tsv beside the split, where tape-eval finds it)",
    )
    parser.add_argument("--log_level", type=log_level, default=20, help="name, or number from 10 to 40 (default INFO)")
    group = parser.add_argument_group("search")
    group.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="MMseqs2, exact alignments by Biopython (small sets), or MMseqs2 if it is installed (auto, the default)",
    )
    group.add_argument(
        "--e_value",
        type=positive_float,
        default=defaults.e_value,
        metavar="E",
        help="highest E-value of an alignment (default %(default)s)",
    )
    group.add_argument(
        "--coverage",
        type=unit_interval,
        default=defaults.coverage,
        metavar="C",
        help="lowest fraction of the test protein that an alignment covers, from 0 to 1 (default %(default)s)",
    )
    group.add_argument(
        "--sensitivity",
        type=positive_float,
        default=defaults.sensitivity,
        metavar="S",
        help="MMseqs2's -s (default %(default)s, its most sensitive)",
    )
    group.add_argument("--threads", type=positive_int, metavar="N", help="threads of MMseqs2 (default: all cores)")
    group = parser.add_argument_group("files")
    add_format(group, "TEST")
    add_column_options(group)
    return parser
