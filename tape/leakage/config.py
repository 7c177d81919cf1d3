"""Configuration of ``tape-leakage``. Imports no torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tape.io.records import RecordOptions

METHODS = ("auto", "mmseqs2", "exact")


@dataclass(frozen=True)
class SearchSettings:
    """Which alignments count, and how they are searched for.

    Attributes:
        e_value: highest E-value of an alignment.
        coverage: lowest fraction of the test protein's residues that an alignment covers.
        sensitivity: MMseqs2's ``-s``.
        candidates: MMseqs2's ``--max-seqs``: proteins per test protein that pass the prefilter.
        alignments: MMseqs2's ``--max-accept``: alignments per test protein, in the order of the prefilter's scores.
        threads: MMseqs2's ``--threads``.
    """

    e_value: float = 1e-3
    coverage: float = 0.5
    sensitivity: float = 7.5
    candidates: int = 1000
    alignments: int = 100
    threads: int = 1


@dataclass(frozen=True)
class LeakageConfig:
    """Identity of the proteins of a file, or of a task's split, to other files (``tape-leakage``).

    Attributes:
        test: file of the test proteins; None: the split of ``task``.
        task, split, data_dir: the split, which is compared with the task's split ``train``.
        against: files of proteins that the model was trained on.
        output: the table to write; None: ``leakage_SPLIT.tsv`` in the folder of the task's data.
        records: format of ``test``, and columns of all tables.
        method: one of METHODS.
        settings: which alignments count, and how they are searched for.
        log_level: level of the terminal's log.
    """

    test: Path | None = None
    task: str | None = None
    split: str = "test"
    data_dir: str = "./data"
    against: tuple[Path, ...] = ()
    output: Path | None = None
    records: RecordOptions = RecordOptions()
    method: str = "auto"
    settings: SearchSettings = SearchSettings()
    log_level: int = logging.INFO
