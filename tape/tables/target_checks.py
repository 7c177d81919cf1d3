"""Checks that a target column can be learned: it is not the sequence or the id, and classes have several proteins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, listed, quoted
from tape.io.records import SEQUENCE_COLUMNS, Record, RecordOptions
from tape.targets import Target
from tape.tasks import TaskType

from .kinds import Label, value_of

_OTHER = "choose another column"
_MOST_SINGLES = 0.5  # of all classes, above which those with a single protein are announced


def check_column(records: Sequence[Record], column: str, options: RecordOptions) -> None:
    """Refuse the sequence and the id as targets, by their values and whatever the name of their column.

    Args:
        records: the proteins of a table, with at least one.
        column: the target.
        options: may name the column of the sequences.

    Raises:
        ConfigError: the column is, or repeats, the sequence or the id of the proteins.
        DataError: a record lacks the column.
    """
    of_sequences = SEQUENCE_COLUMNS if options.sequence_column is None else (options.sequence_column,)
    if column in of_sequences and all(column not in record.fields for record in records):  # which records hold apart
        raise ConfigError(f"--target {quoted(column)} is the sequence, from which the target is predicted; {_OTHER}")
    values = [value_of(record, column) for record in records]
    for name, own in (
        ("sequence", [record.residues for record in records]),
        ("id", [record.identifier for record in records]),
    ):
        if None not in own and all(_is_text_of(value, text) for value, text in zip(values, own, strict=True)):
            raise ConfigError(f"--target {quoted(column)} is the {name} in all {len(records)} records; {_OTHER}")


def check_counts(labels: Sequence[Label], target: Target) -> list[str]:
    """Refuse classes or labels of proteins of which each occurs once.

    Returns:
        A notice if most of them do, else nothing.

    Raises:
        DataError: no class has two proteins, one to learn from and one to evaluate.
    """
    if target.task_type not in (TaskType.SEQUENCE_CLASS, TaskType.MULTILABEL):
        return []
    is_set = target.task_type == TaskType.MULTILABEL
    counts: Counter[int] = Counter()
    for label in labels:
        counts.update(np.flatnonzero(label).tolist() if is_set else [int(label)])
    if not counts:
        return []
    what = "labels" if is_set else "classes"
    single = [target.classes[number] for number, count in sorted(counts.items()) if count == 1]
    shown = listed(single, 3)
    if len(single) == len(counts):
        numbers = "" if is_set else ", or give --task-type regression if its values are quantities"
        raise DataError(
            f"column {quoted(target.column)} has {len(counts)} {what} in {len(labels)} proteins, each in a single"
            f" protein ({shown}), so none can be learned and evaluated. {_OTHER.capitalize()}{numbers}"
        )
    if len(single) <= _MOST_SINGLES * len(counts):
        return []
    return [
        f"{len(single)} of {len(counts)} {what} of {target.column} have a single protein of {len(labels)} ({shown}), so"
        " they can't be learned and evaluated; join rare ones, or choose another --target"
    ]


def _is_text_of(value: Any, text: str | None) -> bool:
    """Whether a cell is this text, as text or as a number that is written so."""
    return not isinstance(value, bool) and str(value).strip() == text
