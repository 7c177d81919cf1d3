"""Configuration of ``tape-groups``. Imports no torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tape.errors import ConfigError
from tape.io.records import RecordOptions

METHODS = ("clusters", "variants")


@dataclass(frozen=True)
class GroupsConfig:
    """Groups of the proteins of a file, or of a task's split (``tape-groups``).

    Attributes:
        test: file of the proteins; None: the split of ``task``.
        task, split, data_dir: the split.
        output: the table to write; None: ``groups_SPLIT.tsv`` in the folder of the task's data.
        records: format of ``test``, and columns of all tables.
        method: one of METHODS.
        identity: lowest identity of related proteins, between 0 and 1; None: see
            :data:`tape.similarity.clusters.DEFAULT_IDENTITY`.
        threads: MMseqs2's ``--threads``.
        log_level: level of the terminal's log.

    Raises:
        ConfigError: an option is missing, or belongs to another method.
    """

    test: Path | None = None
    task: str | None = None
    split: str = "test"
    data_dir: str = "./data"
    output: Path | None = None
    records: RecordOptions = RecordOptions()
    method: str = "clusters"
    identity: float | None = None
    threads: int = 1
    log_level: int = logging.INFO

    def __post_init__(self) -> None:
        if self.identity is not None and self.method == "variants":
            raise ConfigError("--identity is that of clusters; --method variants goes by substitutions")
        if (self.test is None) == (self.task is None):
            raise ConfigError("give a file of test proteins, or --task and --split, and not both")
        if self.test is not None and self.output is None:
            raise ConfigError("--output FILE is missing")
