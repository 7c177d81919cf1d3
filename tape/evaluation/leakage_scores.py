"""The metrics of an evaluation in bins of the proteins' identity to training data, as a record keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tape.leakage.bins import IdentityBin
from tape.leakage.table import ProteinFile
from tape.metrics.metric import Metric


@dataclass(frozen=True)
class BinScores:
    """The metrics of the proteins whose identity to a file of training proteins is in one bin.

    Attributes:
        identity: the bin.
        proteins: number of proteins in it.
        no_hit: how many of them have no hit; 0 in all bins but the lowest.
        metrics: as those of the evaluation, except loss and perplexity, which are not measured per protein; empty
            without proteins.
    """

    identity: IdentityBin
    proteins: int
    no_hit: int
    metrics: tuple[Metric, ...] = ()

    def metric(self, name: str) -> Metric | None:
        """The metric with this name, if it was measured."""
        return next((metric for metric in self.metrics if metric.name == name), None)


@dataclass(frozen=True)
class ReferenceScores:
    """The metrics in bins of identity to one file of training proteins."""

    reference: ProteinFile
    bins: tuple[BinScores, ...]


@dataclass(frozen=True)
class Leakage:
    """The metrics in bins of identity to each file of training proteins.

    Attributes:
        file_sha256: SHA-256 of the table of ``tape-leakage``.
        search: which alignments count, and how they were found.
        references: the files, and the metrics in bins.
    """

    file_sha256: str
    search: dict[str, Any]
    references: tuple[ReferenceScores, ...]
