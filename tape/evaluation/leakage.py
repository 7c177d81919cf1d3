"""Computing the metrics of an evaluation in bins of the proteins' identity to training data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tape.datasets.index import index_of, sequence_of
from tape.datasets.sources import file_of
from tape.errors import ConfigError, DataError
from tape.leakage.bins import BINS, bin_numbers
from tape.leakage.measure import leakage_file
from tape.leakage.proteins import sequence_digest
from tape.leakage.table import LeakageTable, read_table
from tape.metrics import Bootstrap, Summary

from .leakage_scores import BinScores, Leakage, ReferenceScores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitIdentities:
    """The identities of the proteins of a split.

    Attributes:
        table: the table of ``tape-leakage``.
        identities: reference -> (N,) in percent, in the order of the data set; nan without a hit.
    """

    table: LeakageTable
    identities: Mapping[str, np.ndarray]


def find_identities(dataset: Any, split: str, file: Path | None) -> SplitIdentities | None:
    """The identities of the proteins of a split to training data.

    Args:
        dataset: the split.
        split: its name.
        file: table of ``tape-leakage``; None: ``leakage_SPLIT.tsv`` beside the split, if there is one. A table that was
            found there and can't be used is announced and left out.

    Returns:
        The identities; None without a table.

    Raises:
        DataError: ``file`` can't be read, or lacks a protein.
        ConfigError: ``file`` was given, and the data set does not describe its proteins.
    """
    if file is not None:
        return _identities(dataset, file)
    path = file_of(dataset)
    found = None if path is None else leakage_file(path, split)
    if found is None or not found.is_file():
        return None
    try:
        return _identities(dataset, found)
    except (DataError, ConfigError) as error:
        logger.warning("no metrics in bins of identity: %s", error)
        return None


def _identities(dataset: Any, file: Path) -> SplitIdentities:
    table = read_table(file)
    digests = sequence_digests(dataset)
    return SplitIdentities(table, {name: table.identities_of(name, digests) for name in table.identities})


def sequence_digests(dataset: Any) -> list[str]:
    """The digest of each protein's sequence, by which tables of leakage and groups name it.

    Raises:
        ConfigError: the data set does not describe its proteins.
    """
    source = getattr(dataset, "data", None)
    if source is None or index_of(dataset) is None:
        raise ConfigError(f"--leakage: {type(dataset).__name__} does not describe the proteins of its examples")
    return [sequence_digest(sequence_of(source, index, source[index])[0]) for index in range(len(source))]


def scores_in_bins(
    split: SplitIdentities, measured: Sequence[Any], summarize: Summary, bootstrap: Bootstrap | None
) -> Leakage:
    """The metrics of the proteins in each bin.

    Args:
        split: identities of N proteins.
        measured: measurements of these proteins, in the same order; see :func:`tape.metrics.metrics_of`.
        summarize: computes the metrics of some of these rows.
        bootstrap: resampling for the metrics' intervals; None: no intervals.
    """
    references = [
        ReferenceScores(reference, _bins(split.identities[reference.name], measured, summarize, bootstrap))
        for reference in split.table.head.references
    ]
    return Leakage(split.table.sha256, dict(split.table.head.search), tuple(references))


def _bins(
    identities: np.ndarray, measured: Sequence[Any], summarize: Summary, bootstrap: Bootstrap | None
) -> tuple[BinScores, ...]:
    numbers = bin_numbers(identities)
    scores = []
    for number, one in enumerate(BINS):
        inside = np.flatnonzero(numbers == number)
        own = None if bootstrap is None else bootstrap.among(inside)
        metrics = summarize([measured[index] for index in inside.tolist()], own) if inside.size else ()
        scores.append(BinScores(one, inside.size, int(np.isnan(identities[inside]).sum()), tuple(metrics)))
    return tuple(scores)
