"""How a user's own table becomes a task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tape.errors import ConfigError
from tape.io.records import RecordOptions
from tape.targets import COORDINATES, Target, check_columns

SPLIT_COLUMN = "split"
SPLIT_UNITS = ("sequence", "identity")  # what stays together: copies of a sequence, or clusters of related ones


@dataclass(frozen=True)
class TableOptions:
    """A table and how it is used.

    Attributes:
        path: the file: CSV, TSV, JSON, JSON lines, Parquet, FASTA with ``name=value`` in its headers, or LMDB; with
            ``labels`` any format of :mod:`tape.io.records`. Or a structure file, or a folder of them; see
            :mod:`tape.tables.structures`.
        labels: table with the labels of the proteins of ``path``, by id; None: they are in ``path``.
        target: column to predict, or several of values; None where a model states its own, and for contacts, which
            become ``tertiary``.
        kind: regression, classification, multilabel, residue or contact; None: inferred from the values.
        split_column: column with the split of each protein; None: the column ``split``, if there is one.
        fractions: proportions of train, valid and test in a random split; None: 80, 10, 10 without a split column.
        split_by: what stays together in a random split, one of SPLIT_UNITS; None: copies of a sequence.
        split_identity: lowest identity of two proteins that stay together, between 0 and 1; None: that of
            :data:`tape.similarity.clusters.DEFAULT_IDENTITY`.
        seed: seed of the random split.
        splits_file: ``splits.tsv`` of a run to resume, whose splits are used instead; None: a new run.
        run_target: target of a run to resume, with the classes and scales that its weights have been trained with.
        standardize: whether values are standardized by their mean and deviation on the training split.
        atom: of structure files, the atom whose position is that of its residue; None: C-alpha.
        records: format, and columns of the sequence and the id.

    Raises:
        ConfigError: a proportion is out of range, or two options contradict each other.
    """

    path: Path
    target: str | tuple[str, ...] | None = None
    labels: Path | None = None
    kind: str | None = None
    split_column: str | None = None
    fractions: tuple[float, float, float] | None = None
    split_by: str | None = None
    split_identity: float | None = None
    seed: int = 42
    splits_file: Path | None = None
    run_target: Target | None = None
    standardize: bool = True
    atom: str | None = None
    records: RecordOptions = RecordOptions()

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else self.target or ()

    def __post_init__(self) -> None:
        check_columns(self.targets)
        if self.kind == "contact":
            if self.target not in (None, COORDINATES):
                raise ConfigError(
                    f"--target {' '.join(self.targets)}: contacts are computed from the column {COORDINATES}; leave out"
                    " --target"
                )
            object.__setattr__(self, "target", COORDINATES)
        for option, value in (("--split", self.fractions), ("--split-by", self.split_by)):
            if value is not None and self.split_column is not None:
                raise ConfigError(f"{option} draws a split, and --split-column reads one; give one of them")
        if self.split_identity is not None:
            self._check_identity(self.split_identity)
        if self.fractions is not None:
            self._check_fractions(self.fractions)

    def _check_identity(self, identity: float) -> None:
        if self.split_by != "identity":
            raise ConfigError("--split-identity is for --split-by identity; give both")
        if not 0 < identity <= 1:
            raise ConfigError(f"--split-identity {identity:g}: a fraction above 0 and at most 1, such as 0.3")

    @staticmethod
    def _check_fractions(fractions: tuple[float, float, float]) -> None:
        shown = ",".join(f"{part:g}" for part in fractions)
        if not all(math.isfinite(part) and part >= 0 for part in fractions) or not fractions[0]:
            raise ConfigError(f"--split {shown}: proportions must be numbers of at least 0, and that of train above 0")
        if not fractions[1]:
            raise ConfigError(f"--split {shown}: the best epoch is chosen on valid, so its proportion must be above 0")
