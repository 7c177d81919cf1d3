"""How a user's own table becomes a task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tape.errors import ConfigError
from tape.io.records import RecordOptions


@dataclass(frozen=True)
class TableOptions:
    """A table and how it is used.

    Attributes:
        path: the file: CSV, TSV, JSON, JSON lines, Parquet, FASTA with ``name=value`` in its headers, or LMDB.
        target: column to predict; None only where a model states its own.
        kind: regression, classification, multilabel or residue; None: inferred from the values.
        split_column: column with the split of each protein; None: the column ``split``, if there is one.
        fractions: proportions of train, valid and test in a random split; None: 80, 10, 10 without a split column.
        seed: seed of the random split.
        splits_file: ``splits.tsv`` of a run to resume, whose splits are used instead; None: a new run.
        standardize: whether values are standardized by their mean and deviation on the training split.
        records: format, and columns of the sequence and the id.

    Raises:
        ConfigError: a proportion is out of range, or two options contradict each other.
    """

    path: Path
    target: str | None = None
    kind: str | None = None
    split_column: str | None = None
    fractions: tuple[float, float, float] | None = None
    seed: int = 42
    splits_file: Path | None = None
    standardize: bool = True
    records: RecordOptions = RecordOptions()

    def __post_init__(self) -> None:
        if self.fractions is not None and self.split_column is not None:
            raise ConfigError("--split draws a split, and --split-column reads one; give one of them")
        if self.fractions is None:
            return
        shown = ",".join(f"{part:g}" for part in self.fractions)
        if not all(math.isfinite(part) and part >= 0 for part in self.fractions) or not self.fractions[0]:
            raise ConfigError(f"--split {shown}: proportions must be numbers of at least 0, and that of train above 0")
        if not self.fractions[1]:
            raise ConfigError(f"--split {shown}: the best epoch is chosen on valid, so its proportion must be above 0")
