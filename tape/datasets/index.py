"""One look at every record before training: lengths, and whether each sequence can be read.

Batches are made from these lengths alone; a data set's ``__getitem__``, which may build an L x L contact map, is never
called for a length (defect 36). What is wrong with a sequence shows here, with file and record, before the first step.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, UnknownResidueError
from tape.tokenizers import normalise_sequence

from .sources import Record, RecordSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetIndex:
    """What is known of a file of records after one reading.

    Attributes:
        lengths: (N,) residues of each protein.
        identifiers: N ids.
        changes: how many characters were read as others (``lower_case``, ``J_to_X``) or, where records have no labels,
            left out at the end (``stop_removed``), over all records.
    """

    lengths: np.ndarray
    identifiers: Sequence[str]
    changes: Counter[str]


def sequence_of(source: RecordSource, index: int, record: Record) -> tuple[str, Counter[str]]:
    """The record's residues, normalised, and what was changed.

    Raises:
        DataError: no text under ``primary``, an empty one, or a character that is no residue; names file and record.
    """
    primary = field_of(source, index, record, "primary")
    if not isinstance(primary, str):
        raise DataError(f"{source.where(index, record)}: 'primary' should be text, found {type(primary).__name__}")
    try:
        has_labels = getattr(source, "has_labels", True)  # a derived data set may keep a plain list of records
        sequence, changes = normalise_sequence(primary, drop_gaps=False, drop_stop=not has_labels)
    except UnknownResidueError as error:
        raise UnknownResidueError(f"{source.where(index, record)}: {error}") from None
    if not sequence:
        raise DataError(f"{source.where(index, record)}: 'primary' is empty")
    return sequence, changes


def field_of(source: RecordSource, index: int, record: Record, name: str) -> Any:
    """A field of a record.

    Raises:
        DataError: it is missing; names file, record, field and the fields that are there.
    """
    if name not in record:
        present = ", ".join(sorted(map(str, record)))
        raise DataError(f"{source.where(index, record)}: no field {name!r}; present: {present}")
    return record[name]


def build_index(source: RecordSource) -> DatasetIndex:
    """Read every record, once for each source.

    Raises:
        DataError: a record that can't be used; names file and record.
    """
    if source.known_index is None:
        source.known_index = _read_all(source)
    dataset_index: DatasetIndex = source.known_index
    return dataset_index


def _read_all(source: RecordSource) -> DatasetIndex:
    if len(source) == 0:
        raise DataError(f"{source.path}: holds no record")
    lengths = np.empty(len(source), dtype=np.int64)
    identifiers: list[str] = []
    total: Counter[str] = Counter()
    for index in range(len(source)):
        record = source[index]
        sequence, changes = sequence_of(source, index, record)
        lengths[index] = len(sequence)
        identifiers.append(str(record.get("id", index)))
        total.update(changes)
    return DatasetIndex(lengths, identifiers, total)


def speaks_for(dataset: Any, method: str) -> bool:
    """Whether what a data set's method tells of a file's records holds for its examples.

    A third party's class may read other records than those of its file, or cut them. Where it has its own ``__len__``,
    ``__getitem__`` or ``encode``, only a method of its own, or of a class derived from it, speaks for the examples.
    """
    classes = type(dataset).__mro__
    place = {name: position for position, kind in reversed(list(enumerate(classes))) for name in vars(kind)}
    readers = [place[name] for name in ("__len__", "__getitem__", "encode") if name in place]
    return all(place.get(method, 0) <= reader or _is_built_in(classes[reader]) for reader in readers)


def _is_built_in(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


def index_of(dataset: Any) -> DatasetIndex | None:
    """The survey that a data set offers of its own examples: a method ``build_index()``, as the built-in ones have.

    None for any other. A file that it keeps as ``data`` tells nothing: a subset, another order or two examples a
    record are all possible. Then its proteins are not sorted by length, and their ids are their numbers.
    """
    if not hasattr(dataset, "build_index") or not speaks_for(dataset, "build_index"):
        return None
    if not isinstance(getattr(dataset, "data", None), RecordSource | None):  # such as a list of some of its records
        return None
    dataset_index: DatasetIndex | None = dataset.build_index()
    if dataset_index is not None and len(dataset_index.lengths) != len(dataset):
        logger.info(
            "%s has %d examples, but surveys %d", type(dataset).__name__, len(dataset), len(dataset_index.lengths)
        )
        return None
    return dataset_index


def unmasked_labels_of(dataset: Any) -> Callable[[int], np.ndarray] | None:
    """``unmasked_labels`` of a data set of residue classes, if it has it and it speaks for the examples."""
    if not speaks_for(dataset, "unmasked_labels"):
        return None
    labels: Callable[[int], np.ndarray] | None = getattr(dataset, "unmasked_labels", None)
    return labels


def lengths_of(dataset: Any) -> np.ndarray:
    """(N,) residues of each protein; all 0 where they can't be known without building every example."""
    dataset_index = index_of(dataset)
    return np.zeros(len(dataset), dtype=np.int64) if dataset_index is None else dataset_index.lengths


def within_length(lengths: np.ndarray, max_length: int | None) -> np.ndarray:
    """Indices of the proteins of at most ``max_length`` residues; all of them when None.

    Raises:
        ConfigError: none is left.
    """
    if max_length is None:
        return np.arange(len(lengths))
    kept = np.flatnonzero(lengths <= max_length)
    if kept.size == 0:
        raise ConfigError(f"--max_length {max_length} leaves no protein; the shortest has {lengths.min()} residues")
    return kept


def check_position_limit(dataset: Any, max_positions: int | None, indices: np.ndarray | None = None) -> None:
    """Refuse proteins that do not fit a model's position table; nothing is dropped or cut in silence (defect 16).

    Args:
        dataset: one that tells its lengths; any other passes, and the model itself refuses.
        max_positions: rows of the table, of which ``<cls>`` and ``<sep>`` take two; None means no limit.
        indices: the proteins that training will use; None means all, as in evaluation.

    Raises:
        DataError: names file, record, length and limit.
    """
    dataset_index = index_of(dataset)
    if max_positions is None or dataset_index is None:
        return
    without = "" if indices is None else ", or --max_length N to leave long proteins out of training"
    indices = np.arange(len(dataset_index.lengths)) if indices is None else indices
    limit = max_positions - 2
    over = indices[dataset_index.lengths[indices] > limit]
    if over.size == 0:
        return
    worst = int(over[np.argmax(dataset_index.lengths[over])])
    source = getattr(dataset, "data", None)
    name = dataset_index.identifiers[worst]
    where = source.where(worst, {"id": name}) if isinstance(source, RecordSource) else f"record {worst} ({name})"
    raise DataError(
        f"{where}: {dataset_index.lengths[worst]} residues, but the model has positions for {limit}"
        f" ({max_positions} less <cls> and <sep>); {over.size} of {indices.size} proteins are longer than that."
        f" Use a model with more positions, --length crop or --length window{without}"
    )
