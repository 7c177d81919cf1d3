"""The index of a data set: the length and the id of every protein, from one pass over the records.

Batches are planned from these lengths alone. ``__getitem__``, which may compute an L x L contact map, is never called
only to find a length (bug 36 in docs/compatibility.md). Since the pass reads every sequence and its labels, an invalid
one is reported with file and record before the first training step.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, UnknownResidueError, listed, quoted
from tape.io.records import NucleotideCounter, RecordOptions, check_identifier
from tape.tokenizers import normalize_sequence

from .sources import Record, RecordSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetIndex:
    """Lengths and ids of all proteins of a data set.

    Attributes:
        lengths: (N,) number of residues of each protein.
        identifiers: id of each protein.
        changes: number of characters that were replaced (``lower_case``, ``J_to_X``) or, in records without labels,
            removed at the end (``stop_removed``), over all records.
        unlabeled: number of residues without a label, over all records; 0 for tasks without labels of residues.
    """

    lengths: np.ndarray
    identifiers: Sequence[str]
    changes: Counter[str]
    unlabeled: int = 0


def sequence_of(source: RecordSource, index: int, record: Record) -> tuple[str, Counter[str]]:
    """The record's normalized residues, and the number of changes of each kind.

    Raises:
        DataError: ``primary`` is missing, empty, not text, or has a character that is not a residue. Names file and
            record.
    """
    primary = field_of(source, index, record, "primary")
    if not isinstance(primary, str):
        raise DataError(f"{source.where(index, record)}: 'primary' must be text, not {type(primary).__name__}")
    try:
        has_labels = getattr(source, "has_labels", True)  # a derived data set may keep a plain list of records
        sequence, changes = normalize_sequence(primary, drop_gaps=False, drop_stop=not has_labels)
    except UnknownResidueError as error:
        raise UnknownResidueError(f"{source.where(index, record)}: {error}") from None
    if not sequence:
        raise DataError(f"{source.where(index, record)}: 'primary' is empty")
    return sequence, changes


def field_of(source: RecordSource, index: int, record: Record, name: str) -> Any:
    """Look up a field of a record.

    Raises:
        DataError: the field is missing. Names file, record, field and the fields that the record has.
    """
    if name not in record:
        present = listed(sorted(map(str, record)))
        raise DataError(f"{source.where(index, record)}: no field {quoted(name)}; present: {present}")
    return record[name]


LabelCheck = Callable[[int, Record, int], object]  # of a record, given its number and its number of residues


def build_index(source: RecordSource, check_labels: LabelCheck | None = None) -> DatasetIndex:
    """Index a file of records. The result is cached, so every file is read once.

    Args:
        source: the file.
        check_labels: called with each record; raises a DataError if its labels can't be used, and may return the number
            of residues without a label.

    Raises:
        DataError: the file has no record, or a record is invalid. Names file and record.
    """
    if source.known_index is None:
        source.known_index = _read_all(source, check_labels)
    dataset_index: DatasetIndex = source.known_index
    return dataset_index


def _read_all(source: RecordSource, check_labels: LabelCheck | None) -> DatasetIndex:
    if len(source) == 0:
        raise DataError(f"{source.path}: contains no record")
    nucleotides = NucleotideCounter()
    lengths = np.empty(len(source), dtype=np.int64)
    identifiers: list[str] = []
    total: Counter[str] = Counter()
    unlabeled = 0
    for index in range(len(source)):
        record = source[index]
        sequence, changes = sequence_of(source, index, record)
        nucleotides.add(sequence)
        if check_labels is not None:
            found = check_labels(index, record, len(sequence))
            unlabeled += found if isinstance(found, int) else 0
        lengths[index] = len(sequence)
        identifiers.append(check_identifier(str(record.get("id", index)), source.where(index)))
        total.update(changes)
    nucleotides.warn(source.path)
    return DatasetIndex(lengths, identifiers, total, unlabeled)


def describes_examples(dataset: Any, method: str) -> bool:
    """Whether an inherited ``method``, which describes the records of the file, also describes the examples.

    A third-party class may select or crop the records of its file. If it overrides ``__len__``, ``__getitem__`` or
    ``encode``, only a ``method`` that is defined in this class or below it is trusted.
    """
    classes = type(dataset).__mro__
    place = {name: position for position, kind in reversed(list(enumerate(classes))) for name in vars(kind)}
    readers = [place[name] for name in ("__len__", "__getitem__", "encode") if name in place]
    return all(place.get(method, 0) <= reader or _is_built_in(classes[reader]) for reader in readers)


def _is_built_in(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


def index_of(dataset: Any) -> DatasetIndex | None:
    """The index of a data set that has a method ``build_index()``, as the built-in ones do; None for any other.

    A file in the attribute ``data`` is not enough, since the examples may be a subset of its records, in another order,
    or several per record. Without an index, proteins are not sorted by length, and their numbers serve as ids.
    """
    if not hasattr(dataset, "build_index") or not describes_examples(dataset, "build_index"):
        return None
    if not isinstance(getattr(dataset, "data", None), RecordSource | None):  # such as a list of some of its records
        return None
    dataset_index: DatasetIndex | None = dataset.build_index()
    if dataset_index is not None and len(dataset_index.lengths) != len(dataset):
        counts = len(dataset), len(dataset_index.lengths)
        logger.info("%s has %d examples, but an index of %d: not using the index", type(dataset).__name__, *counts)
        return None
    return dataset_index


def unmasked_labels_of(dataset: Any) -> Callable[[int], np.ndarray] | None:
    """Method ``unmasked_labels`` of a data set of residue classes; None if it has none that describes its examples."""
    if not describes_examples(dataset, "unmasked_labels"):
        return None
    labels: Callable[[int], np.ndarray] | None = getattr(dataset, "unmasked_labels", None)
    return labels


def lengths_of(dataset: Any) -> np.ndarray:
    """(N,) number of residues of each protein; all 0 if the data set has no index."""
    dataset_index = index_of(dataset)
    return np.zeros(len(dataset), dtype=np.int64) if dataset_index is None else dataset_index.lengths


def within_length(lengths: np.ndarray, max_length: int | None) -> np.ndarray:
    """Indices of the proteins of at most ``max_length`` residues; of all proteins if it is None.

    Raises:
        ConfigError: no protein is that short.
    """
    if max_length is None:
        return np.arange(len(lengths))
    kept = np.flatnonzero(lengths <= max_length)
    if kept.size == 0:
        raise ConfigError(f"--max_length {max_length} leaves no protein; the shortest has {lengths.min()} residues")
    return kept


def load_split(
    dataset_class: Any, data_dir: str, split: str, tokenizer: str, records: RecordOptions = RecordOptions()
) -> Any:
    """A split of a task, opened by its data set class; its sequences and labels are checked (if it has
    ``build_index``).

    Logs how many characters of its sequences were replaced.

    Raises:
        ProteinLMError: the split is missing or damaged, or a record is invalid.
    """
    dataset = dataset_class(data_dir, split, tokenizer, **reader_options(dataset_class, records))
    log_replaced_characters(dataset, split)
    _log_unlabeled_residues(dataset, split)
    return dataset


def _log_unlabeled_residues(dataset: Any, split: str) -> None:
    dataset_index = index_of(dataset)
    if dataset_index is not None and dataset_index.unlabeled:
        residues = int(dataset_index.lengths.sum())
        logger.info("%s: %d of %d residues have no label", split, dataset_index.unlabeled, residues)


def reader_options(dataset_class: Callable[..., Any], records: RecordOptions) -> dict[str, RecordOptions]:
    """The keyword argument ``options`` of a data set's constructor; empty if nothing deviates from the default.

    Raises:
        ConfigError: the class reads its files itself.
    """
    if records == RecordOptions():
        return {}
    if "options" not in inspect.signature(dataset_class).parameters:
        name = getattr(dataset_class, "__name__", dataset_class)
        raise ConfigError(f"{name} reads its files itself: --format, --sequence_column and --id_column can't be used")
    return {"options": records}


def log_replaced_characters(dataset: Any, source: str) -> None:
    """Warn if characters of the sequences were replaced on reading, such as lower-case letters or J."""
    dataset_index = index_of(dataset)
    if dataset_index is not None and dataset_index.changes:
        changes = ", ".join(f"{name} {count}" for name, count in sorted(dataset_index.changes.items()))
        logger.warning("characters replaced in the sequences of %s: %s", source, changes)
