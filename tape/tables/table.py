"""A user's own table with the labels of its target and its splits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tape.errors import ConfigError, DataError, UnknownResidueError, listed
from tape.io.checksums import sha256_of
from tape.io.records import Nucleotides, Record, names_of, open_records
from tape.io.text_files import data_file
from tape.targets import COORDINATES, Target
from tape.tasks import TASKS, TaskType

from .kinds import Label, infer_kind, label_of, make_target
from .label_table import read_with_labels
from .options import TableOptions
from .scale import describe_scale, mean_and_deviation
from .splits import (
    ALL_PROTEINS,
    NEW_PROTEINS,
    Division,
    describe_splits,
    digest_of,
    divide_records,
    own_split,
    read_splits,
)
from .structures import STATES, read_structure_records, structure_files
from .target_checks import (
    check_column,
    check_counts,
    class_notices,
    conflict_notices,
    identifier_notices,
    sequence_notices,
)

_FEWEST = 10  # proteins with a label
_LONGEST_TARGETS = 80  # characters of the names of several targets in a task's name, which is that of directories


@dataclass(frozen=True)
class Table:
    """The labeled proteins of a table.

    Attributes:
        path: the file.
        target: what is predicted.
        identifiers, sequences, labels, digests, splits: of each protein; see :func:`tape.tables.kinds.label_of` and
            :func:`tape.tables.splits.digest_of`.
        notices: lines on what was inferred, left out and drawn.
        training_notices: lines on what the training proteins give: scales by which values are standardized, and classes
            that can't be learned.
        division: where the splits are from; None: a table for an evaluation.
        labels_file: the table of the labels; None: they are in ``path``.
        structures: the structure files that it is of; empty for all other tables.
    """

    path: Path
    target: Target
    identifiers: tuple[str, ...]
    sequences: tuple[str, ...]
    labels: tuple[Label, ...]
    digests: tuple[str, ...]
    splits: tuple[str, ...]
    notices: tuple[str, ...] = ()
    training_notices: tuple[str, ...] = ()
    division: Division | None = None
    labels_file: Path | None = None
    structures: tuple[Path, ...] = ()

    @cached_property
    def sha256(self) -> str | None:
        """SHA-256 of the files that the table was read from, one after the other; None if it is ``path`` alone."""
        if self.structures:
            return sha256_of(*self.structures)
        return None if self.labels_file is None else sha256_of(data_file(self.path), self.labels_file)

    def places(self, split: str) -> list[int]:
        """Numbers of the proteins of a split; of all proteins for ``all``.

        Raises:
            DataError: there is none. Lists the splits of the table.
        """
        found = [place for place, name in enumerate(self.splits) if split in (name, ALL_PROTEINS)]
        if not found:
            raise DataError(
                f"{self.path}: no protein of split {split}; it has {describe_splits(self.splits)}"
                f" ({ALL_PROTEINS}: every protein)"
            )
        return found

    def count(self, split: str) -> int:
        """Number of proteins of a split."""
        return sum(name == split for name in self.splits)


def table_for_training(options: TableOptions) -> Table:
    """The table of a run: its target is that of ``options``, its splits are those of a column or drawn.

    A resumed run has the target of the interrupted one, so that the numbers of the classes and the scales are those
    that its weights have been trained with, whatever the table has now.

    Raises:
        ProteinLMError: the file can't be read, the target can't be learned, or a split can't be used.
    """
    structures = structure_files(options.path)
    if options.run_target is not None:
        options = _with_columns_of(options, options.run_target)
    if options.atom is not None and not structures:
        raise ConfigError(f"--atom {options.atom}: {options.path} is no structure file or folder of such files")
    if not options.targets and not structures:
        raise ConfigError(f"--data {options.path}: give the column to predict, --target NAME")
    records, unlabeled = _read(options, structures)
    if options.run_target is not None:
        target, notices = (
            options.run_target,
            [f"{options.path.name}: {options.run_target.column} as in the resumed run"],
        )
    else:
        target, notices = _new_target(options, records, structures)
    notices += unlabeled
    records, labels, missing = _labeled(records, target)
    if missing:
        notices.append(f"{missing} of {missing + len(records)} proteins are left out: they have {_none_of(target)}")
    if len(records) < _FEWEST:
        raise DataError(f"{options.path}: {len(records)} proteins with a label; at least {_FEWEST} are needed")
    notices += check_counts(labels, target)
    notices += class_notices(target)
    if target.has_several_values:
        notices += _missing_values(options.path, target, labels)
    digests = _digests(records)
    division = divide_records(
        records, digests, labels if target.task_type == TaskType.SEQUENCE_CLASS else None, options
    )
    splits = division.splits
    notices += division.notices
    for needed in ("train", "valid"):
        if needed not in splits:
            raise DataError(
                f"{options.path}: no protein is in split {needed} ({division.origin}); the table is too small"
            )
    notices += [
        *identifier_notices(records, digests),
        *sequence_notices(records),
        *conflict_notices(digests, labels, target),
    ]
    if target.has_several_values:
        notices += _absent_values(labels, splits, target)
    table = _table(options, target, records, labels, digests, splits, notices, structures)
    table = _fitted(table, options, [labels[place] for place in table.places("train")])
    return replace(table, division=division)


def fitted_to(table: Table, options: TableOptions, proteins: np.ndarray) -> Table:
    """The table with the scales, and the notices, of the training proteins that a run draws from it.

    Args:
        table: see :func:`table_for_training`.
        options: those that it was read with.
        proteins: (N,) numbers of the proteins to train on, within the training split.

    Raises:
        DataError: the values of these proteins can't be learned.
    """
    places = table.places("train")
    if len(proteins) == len(places):
        return table
    return _fitted(table, options, [table.labels[places[number]] for number in proteins.tolist()])


def _fitted(table: Table, options: TableOptions, labels: Sequence[Label]) -> Table:
    """The table with the scales of the labels of all training proteins, or on a resume, with those of the interrupted
    run.

    Raises:
        DataError: the values can't be learned, also if they are not standardized.
    """
    if table.target.task_type != TaskType.VALUE:
        return replace(table, training_notices=_absent_classes(labels, table.target))
    standardized = _standardized(table.target, _training_values(table.target, labels))
    if not options.standardize:
        return table
    target = options.run_target or standardized
    lines = (
        describe_scale(column, scale, own)
        for column, scale, own in zip(target.columns, target.scales, standardized.scales, strict=True)
    )
    return replace(table, target=target, training_notices=tuple(lines))


def table_for_evaluation(options: TableOptions, target: Target, splits_file: Path) -> Table:
    """A table for a model's evaluation. Proteins of the run have its splits, all others that of the column ``split``,
    or else ``new``.

    Args:
        options: the file and its columns.
        target: that of the model.
        splits_file: ``splits.tsv`` of the model's run.

    Raises:
        ProteinLMError: the file can't be read, or a label is none of the target's.
    """
    options = _with_columns_of(options, target)
    structures = structure_files(options.path)
    records, notices = _read(options, structures)
    records, labels, missing = _labeled(records, target)
    if not records:
        named = listed([repr(column) for column in target.columns], len(target.columns))
        raise DataError(f"{options.path}: no protein has a value in column {named}")
    digests, known = _digests(records), read_splits(splits_file)
    notices += identifier_notices(records, digests)
    splits = [
        known.get(digest, own_split(record) or NEW_PROTEINS) for digest, record in zip(digests, records, strict=True)
    ]
    if missing:
        notices.append(f"{missing} proteins are left out: they have {_none_of(target)}")
    return _table(options, target, records, labels, digests, splits, notices, structures)


def _with_columns_of(options: TableOptions, target: Target) -> TableOptions:
    columns = target.columns if target.has_several_values else target.column
    return replace(options, target=columns, atom=target.atom)


def task_name(path: Path, *targets: str) -> str:
    """Name of a table's task: ``FILE_TARGET``, with all targets as far as the name is short; never that of a built-in
    task."""
    shown = "_".join(targets)
    if len(targets) > 1 and len(shown) > _LONGEST_TARGETS:
        shown = f"{targets[0]}_and_{len(targets) - 1}_more"
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{path.name.split('.')[0]}_{shown}").strip("_.-") or "table"
    return f"{name}_table" if name in TASKS else name


def _new_target(
    options: TableOptions, records: Sequence[Record], structures: tuple[Path, ...]
) -> tuple[Target, list[str]]:
    """The target of a run, not standardized yet, and a line on the kind of each column.

    Raises:
        ConfigError: one of several columns has other labels than values.
        DataError: a column is missing or empty, or its kind can't be inferred.
    """
    columns = options.targets
    task = task_name(options.path, *("contact" if column == COORDINATES else column for column in columns))
    notices = []
    for column in columns:
        check_column(records, column, options.records)
        inferred = None if options.kind else infer_kind(records, column)
        kind = options.kind or (inferred.kind if inferred else "")
        why = f", since {inferred.reason}" if inferred else ""
        if len(columns) > 1 and kind != "regression":
            raise ConfigError(
                f"{options.path}: {column} is {kind}{why}, but only columns of values can be learned by one model."
                " Train a model for each --target; of labels that apply or not, make one column of lists"
                " (--task-type multilabel). If the column has values, give --task-type regression"
            )
        shown = "residues, from their coordinates" if column == COORDINATES else column
        notices.append(f"{options.path.name}: {kind} of {shown}{why}")
    if structures:
        notices.append(f"{len(records)} protein chains of {len(structures)} structure files")
        return _structure_target(options, kind, task), notices
    if len(columns) > 1:
        return Target(task, TaskType.VALUE, columns), notices
    return make_target(records, columns[0], kind, task), notices


def _none_of(target: Target) -> str:
    return f"none of {target.column}" if target.has_several_values else f"no {target.column}"


def _missing_values(path: Path, target: Target, labels: Sequence[Label]) -> list[str]:
    """A line for each of several targets that some proteins lack.

    Raises:
        DataError: too few proteins have a value.
    """
    notices = []
    counts = (~np.isnan(np.stack(labels))).sum(axis=0).tolist()
    for column, count in zip(target.columns, counts, strict=True):
        if count < _FEWEST:
            raise DataError(f"{path}: {count} proteins with {column}; at least {_FEWEST} are needed")
        if count < len(labels):
            notices.append(f"{len(labels) - count} of {len(labels)} proteins have no {column}, but another target")
    return notices


def _read(options: TableOptions, structures: tuple[Path, ...]) -> tuple[list[Record], list[str]]:
    """The records with the fields that have the labels, and notices about proteins left out."""
    if structures:
        return read_structure_records(options, structures), []
    if options.labels is not None:
        return read_with_labels(options.path, options.labels, options.records)
    records = list(open_records(options.path, options.records, with_fields=True, nucleotides=Nucleotides.WARN))
    if not records:
        raise DataError(f"{options.path}: contains no record")
    return records, []


def _structure_target(options: TableOptions, kind: str, task: str) -> Target:
    """The target of structure files, whose classes are all states, so that every other structure can be evaluated.

    Raises:
        ConfigError: the column has another kind of target.
    """
    own = "contact" if options.target == COORDINATES else "residue"
    if kind != own:
        raise ConfigError(f"--task-type {kind}: {options.target} of structure files is a target of the type {own}")
    column = str(options.target)
    if column == COORDINATES:
        return Target(task, TaskType.RESIDUE_PAIR, (column,), atom=options.atom or "CA")
    return Target(task, TaskType.RESIDUE_CLASS, (column,), STATES[column])


def _labeled(records: Sequence[Record], target: Target) -> tuple[list[Record], list[Label], int]:
    """The records with a label, their labels, and the number of other records."""
    pairs = [(record, label_of(record, target)) for record in records]
    kept = [(record, label) for record, label in pairs if label is not None]
    return [record for record, _ in kept], [label for _, label in kept], len(pairs) - len(kept)


def _digests(records: Sequence[Record]) -> list[str]:
    digests = []
    for record in records:
        try:
            digests.append(digest_of(record.residues))
        except UnknownResidueError as error:
            raise UnknownResidueError(f"{record.where}: {error}") from None
    return digests


def _absent_classes(labels: Sequence[Label], target: Target) -> tuple[str, ...]:
    """A notice about the classes that can't be learned from these labels, if any."""
    seen: Counter[int] = Counter()
    for label in labels if target.classes else ():
        is_set = target.task_type == TaskType.MULTILABEL
        seen.update((np.flatnonzero(label) if is_set else np.unique(np.asarray(label))).tolist())
    absent = [name for number, name in enumerate(target.classes) if not seen[number]]
    return (f"classes without a training protein, which can't be learned: {listed(absent)}",) if absent else ()


def _absent_values(labels: Sequence[Label], splits: Sequence[str], target: Target) -> list[str]:
    """A notice about each of several targets without any value in a split by which models are chosen or measured."""
    known, notices = ~np.isnan(np.stack(labels)), []
    for split, use in (("valid", "the best epoch is chosen without it"), ("test", "it can't be evaluated there")):
        own = known[np.array(splits) == split]
        if len(own):
            absent = [column for column, has in zip(target.columns, own.any(axis=0), strict=True) if not has]
            notices += [f"no protein of split {split} has {column}, so {use}" for column in absent]
    return notices


def _training_values(target: Target, labels: Sequence[Label]) -> list[np.ndarray]:
    """The values of each column in the labels of training proteins, float64, without those that are missing.

    Raises:
        DataError: a column has none.
    """
    found = [values[~np.isnan(values)] for values in np.array(labels, dtype=np.float64).reshape(len(labels), -1).T]
    for column, values in zip(target.columns, found, strict=True):
        if not values.size:
            raise DataError(f"column {column!r} has no value for any training protein: nothing to learn")
    return found


def _standardized(target: Target, values: Sequence[np.ndarray]) -> Target:
    scales = [
        mean_and_deviation(own.tolist(), f"column {column!r}")
        for column, own in zip(target.columns, values, strict=True)
    ]
    return replace(target, scales=tuple(scales))


def _table(
    options: TableOptions,
    target: Target,
    records: Sequence[Record],
    labels: Sequence[Label],
    digests: Sequence[str],
    splits: Sequence[str],
    notices: Sequence[str],
    structures: tuple[Path, ...],
) -> Table:
    return Table(
        path=options.path,
        target=target,
        identifiers=tuple(names_of(record.identifier for record in records)),
        sequences=tuple(record.residues for record in records),
        labels=tuple(labels),
        digests=tuple(digests),
        splits=tuple(splits),
        notices=tuple(notices),
        labels_file=options.labels,
        structures=structures,
    )
