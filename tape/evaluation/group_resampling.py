"""Intervals of an evaluation that resample whole groups of proteins, such as families or designs, not proteins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tape.datasets.index import index_of
from tape.datasets.sources import file_of
from tape.errors import ConfigError, DataError
from tape.io.checksums import sha256_of
from tape.metrics.bootstrap import Bootstrap

from .groups import Groups, read_groups
from .leakage import sequence_digests
from .records import ResampledGroups

logger = logging.getLogger(__name__)


def groups_file(split_file: Path, split: str) -> Path:
    """Where an evaluation looks for the groups of a split.

    Args:
        split_file: the split's file in the folder of the task's data.
        split: its name.
    """
    return split_file.parent / f"groups_{split}.tsv"


def with_groups(
    bootstrap: Bootstrap | None, dataset: Any, split: str, file: Path | None
) -> tuple[Bootstrap | None, ResampledGroups | None]:
    """A bootstrap that draws the groups of a split's proteins.

    Args:
        bootstrap: number of resamples, seed and level; None: no intervals.
        dataset: the split.
        split: its name.
        file: table of the groups; None: ``groups_SPLIT.tsv`` beside the split, if there is one. A table that was found
            there and can't be used is announced and left out.

    Returns:
        The bootstrap, and the table for the record of the evaluation; None if proteins are drawn.

    Raises:
        DataError: ``file`` can't be read, lacks a protein, or has one group.
        ConfigError: ``file`` was given without intervals, or the data set does not describe its proteins.
    """
    if bootstrap is None:
        if file is not None:
            raise ConfigError(f"--groups {file}: groups are resampled for intervals, of which --bootstrap 0 makes none")
        return None, None
    if file is not None:
        return _with_table(bootstrap, dataset, split, file)
    path = file_of(dataset)
    found = None if path is None else groups_file(path, split)
    if found is None or not found.is_file():
        return bootstrap, None
    try:
        return _with_table(bootstrap, dataset, split, found)
    except (DataError, ConfigError) as error:
        logger.warning("intervals are over proteins, not over groups: %s", error)
        return bootstrap, None


def _with_table(bootstrap: Bootstrap, dataset: Any, split: str, file: Path) -> tuple[Bootstrap, ResampledGroups]:
    index = index_of(dataset)
    if index is None:
        raise ConfigError(f"{file}: {type(dataset).__name__} does not describe the proteins of its examples")
    groups = read_groups(file)
    numbers = groups.numbers(index.identifiers, f"split {split}")
    if groups.digests:
        _check_sequences(groups, dataset, index.identifiers, split)
    used = ResampledGroups(str(file.absolute()), sha256_of(file), int(numbers.max()) + 1)
    return replace(bootstrap, groups=numbers), used


def _check_sequences(groups: Groups, dataset: Any, identifiers: Sequence[str], split: str) -> None:
    """Check that the table is of these proteins, since ids may be no more than numbers of records.

    Raises:
        DataError: an id has another sequence there. Names both files.
    """
    source = dataset.data
    for place, (name, digest) in enumerate(zip(identifiers, sequence_digests(dataset), strict=True)):
        if groups.digests.get(name) != digest:
            raise DataError(
                f"{groups.path}: another sequence than that of {source.where(place, source[place])}: the table was made"
                f" for other proteins than those of split {split}; make it again with tape-groups"
            )
