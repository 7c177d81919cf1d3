"""Checks that a target column can be learned: it is not the sequence or the id, and classes have several proteins.

What may be meant, but is a mistake as a rule, is announced.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, listed, quoted
from tape.io.records import Record, RecordOptions, sequence_columns
from tape.io.records.labels import UNLABELED
from tape.targets import LABEL_SEPARATOR, Target
from tape.tasks import TaskType

from .kinds import MISSING_NUMBERS, Label, is_integer, value_of

_OTHER = "choose another column"
_MISSING_WORDS = MISSING_NUMBERS | {"#n/a", "<na>", "n.a.", "--", "missing"}
_MISSING_WORDS |= {"inf", "-inf", "infinity", "#div/0!", "#value!"}
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
    is_sequence = column == options.sequence_column if options.sequence_column else bool(sequence_columns([column]))
    if is_sequence and all(column not in record.fields for record in records):  # which records hold apart
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


def class_notices(target: Target) -> list[str]:
    """A line for classes that look like missing labels, one class in several spellings, or several labels."""
    if target.task_type not in (TaskType.SEQUENCE_CLASS, TaskType.MULTILABEL):
        return []
    notices, column = [], target.column
    missing = [name for name in target.classes if name.lower() in _MISSING_WORDS]
    if missing:
        notices.append(f"classes of {column}: {listed(missing)}; empty these cells if their labels are missing")
    for alike in _grouped((_plain_text(name), name) for name in target.classes):
        if len(alike) > 1:
            notices.append(f"different classes of {column}: {listed(alike)}; write them alike if they are one")
    joined = [name for name in target.classes if LABEL_SEPARATOR in name]
    if joined and not target.is_multilabel:
        notices.append(
            f"single classes of {column}: {listed(joined, 3)}; give --task-type multilabel if they are several labels"
        )
    return notices


def conflict_notices(digests: Sequence[str], labels: Sequence[Label], target: Target) -> list[str]:
    """A line about sequences that occur with different labels; copies of structures differ always.

    Missing values of one row and unlabeled residues are not different from those of another.
    """
    if target.task_type == TaskType.RESIDUE_PAIR:
        return []
    groups = _grouped((digest, np.asarray(label)) for digest, label in zip(digests, labels, strict=True))
    unknown = UNLABELED if target.task_type == TaskType.RESIDUE_CLASS else None
    count = sum(len(group) > 1 and _differ(group, unknown) for group in groups)
    if not count:
        return []
    return [
        f"{count} of {len(groups)} sequences have several rows with different {target.column}, for which a model"
        " predicts the same"
    ]


def identifier_notices(records: Sequence[Record], digests: Sequence[str]) -> list[str]:
    """A line about ids of several sequences; copies of a sequence, such as repeated measurements, may share one."""
    own = [(record, digest) for record, digest in zip(records, digests, strict=True) if record.identifier is not None]
    groups = _grouped((str(record.identifier), (record, digest)) for record, digest in own)
    repeated = [group for group in groups if len({digest for _, digest in group}) > 1]
    if not repeated:
        return []
    (first, digest), *others = repeated[0]
    second = next(record for record, other in others if other != digest)
    return [
        f"{len(repeated)} of {len(groups)} ids belong to several sequences, such as {quoted(str(first.identifier))}"
        f" ({first.where}, and {second.where}): splits go by the sequence, but results by protein show the id alone"
    ]


def sequence_notices(records: Sequence[Record]) -> list[str]:
    """A line about sequences like ``nan``, which programs write for missing cells, and whose letters are residues."""
    found = [record for record in records if record.residues.lower() in MISSING_NUMBERS]
    if not found:
        return []
    first = found[0]
    return [
        f"the sequence of {len(found)} of {len(records)} proteins is a word for a missing cell, such as"
        f" {quoted(first.residues)} ({first.where}); remove them unless these are their residues"
    ]


def _plain_text(name: str) -> str:
    """A name without what readers overlook: case, forms of a letter, and leading zeros."""
    return str(int(name)) if is_integer(name) else unicodedata.normalize("NFKC", name).casefold()


def _grouped(pairs: Iterable[tuple[str, Any]]) -> list[list[Any]]:
    groups: dict[str, list[Any]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return list(groups.values())


def _differ(labels: Sequence[np.ndarray], unknown: int | None) -> bool:
    """Whether labels of a sequence differ where they are known, neither NaN nor ``unknown``."""
    values = np.stack(labels).astype(np.float64)
    if unknown is not None:
        values[values == unknown] = np.nan
    highest, lowest = np.fmax.reduce(values), np.fmin.reduce(values)
    return bool(((highest != lowest) & ~np.isnan(highest)).any())


def _is_text_of(value: Any, text: str | None) -> bool:
    """Whether a cell is this text, as text or as a number that is written so."""
    return not isinstance(value, bool) and str(value).strip() == text
