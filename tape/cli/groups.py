"""``tape-groups``: families of test proteins, over which ``tape-eval`` then has its intervals."""

from __future__ import annotations

from pathlib import Path

from tape.evaluation.groups_config import METHODS, GroupsConfig
from tape.runtime.cpu import usable_cores
from tape.similarity.clusters import DEFAULT_IDENTITY

from .options import Arguments, add_column_options, add_format, log_level, parse_given, record_options
from .parser import ArgumentParser
from .protein_files import add_test_proteins, check_options_of_task, in_first_process
from .types import positive_int, unit_interval


def run_groups(arguments: Arguments = None) -> Path | None:
    """Divide test proteins into groups and write the table; returns the file written.

    Of several processes that a launcher started, only the first one works; the others return None.

    Raises:
        ProteinLMError: options or files can't be used, or there are no groups.
    """
    config = groups_config(arguments)

    def make() -> Path:
        from tape.evaluation.make_groups import make_groups

        return make_groups(config)

    return in_first_process("tape-groups", config.log_level, make)


def groups_config(arguments: Arguments = None) -> GroupsConfig:
    """Configuration of ``tape-groups``.

    Raises:
        ConfigError: an option belongs to another that is missing, or see :class:`GroupsConfig`.
    """
    options, given = parse_given(create_groups_parser(), arguments)
    check_options_of_task(options, given)
    return GroupsConfig(
        test=options["test"],
        task=options["task"],
        split=options["split"],
        data_dir=options["data_dir"],
        output=options["output"],
        records=record_options(options),
        method=options["method"],
        identity=options["identity"],
        threads=options["threads"] or usable_cores(),
        log_level=options["log_level"],
    )


def create_groups_parser() -> ArgumentParser:
    """``TEST --output FILE``, or ``--task`` and ``--split``, and the method."""
    parser = ArgumentParser(
        prog="tape-groups",
        description="Divide test proteins into groups, such as families or the variants of one protein, and write them"
        " as a table; the intervals of tape-eval and tape-compare are then over groups, which are independent, instead"
        " of over proteins.",
    )
    add_test_proteins(parser, "instead of TEST: a split of this task")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.tsv",
        help="table to write (default with --task: groups_SPLIT.tsv beside the split, where tape-eval finds it)",
    )
    parser.add_argument("--log_level", type=log_level, default=20, help="name, or number from 10 to 40 (default INFO)")
    group = parser.add_argument_group("groups")
    group.add_argument(
        "--method",
        choices=METHODS,
        default="clusters",
        help="clusters of related proteins, by MMseqs2 if it is installed, otherwise by shared 4-mers (the default), or"
        " families of variants of equal length, by substitutions from their wild types, which need not be in the set"
        " (variants), as for stability; proteins that differ in at most 15 positions, or a quarter, are in one of them",
    )
    identities = ", ".join(f"{identity:g} of {name}" for name, identity in DEFAULT_IDENTITY.items())
    group.add_argument(
        "--identity",
        type=unit_interval,
        metavar="I",
        help=f"lowest identity of two related proteins, from 0 to 1 (default: {identities})",
    )
    group.add_argument("--threads", type=positive_int, metavar="N", help="threads of MMseqs2 (default: all cores)")
    group = parser.add_argument_group("files")
    add_format(group, "TEST")
    add_column_options(group)
    return parser
