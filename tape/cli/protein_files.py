"""What commands that read test proteins, without a model, have in common: ``tape-leakage`` and ``tape-groups``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tape.errors import ConfigError, print_notice
from tape.registry import registry
from tape.runtime.launch import read_launch
from tape.runtime.process import log_to_terminal

from .options import Options
from .parser import ArgumentParser


def add_test_proteins(parser: ArgumentParser, task_help: str) -> None:
    """Add the file of proteins, and ``--task``, ``--split`` and ``--data_dir`` instead of it."""
    parser.add_argument(
        "test", nargs="?", type=Path, metavar="TEST", help="test proteins: FASTA, .csv, .tsv, .json, .jsonl, .lmdb, ..."
    )
    parser.add_argument("--task", choices=sorted(registry.task_name_mapping), metavar="TASK", help=task_help)
    parser.add_argument("--split", default="test", help="split of --task (default %(default)s)")
    parser.add_argument("--data_dir", default="./data", help="directory with one folder per task (default %(default)s)")


def check_options_of_task(options: Options, given: Sequence[str]) -> None:
    """Refuse options that need ``--task``.

    Raises:
        ConfigError: one is given without it.
    """
    unused = [f"--{name}" for name in ("split", "data_dir") if name in given]
    if options["task"] is None and unused:
        raise ConfigError(f"{' and '.join(unused)}: only with --task, which is missing")


def in_first_process(command: str, log_level: int, run: Callable[[], Path]) -> Path | None:
    """Run a command that does not divide its work; all but a launcher's first process return None, with a notice."""
    if read_launch(os.environ).rank != 0:
        print_notice(f"note: {command} runs in the first process only")
        return None
    with log_to_terminal(log_level):
        return run()
