"""The kind of a target column, inferred from its values, and the labels in it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, did_you_mean, listed, quoted
from tape.io.json_files import parse_json
from tape.io.records import Record
from tape.io.records.labels import number_of, resolved_points
from tape.targets import COORDINATES, LABEL_SEPARATOR, OWN_TASK_TYPES, Target
from tape.tasks import TaskType

MOST_INTEGER_CLASSES = 20
MISSING_NUMBERS = frozenset({"na", "n/a", "nan", "null", "none", "-", "?"})
_RESIDUE_UNLABELED = "-"
_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}")  # int() refuses more than 4,300 digits

Label = float | int | np.ndarray


@dataclass(frozen=True)
class Inferred:
    """The kind of a column, and why it was inferred."""

    kind: str
    reason: str


def value_of(record: Record, column: str) -> Any:
    """A cell: stripped text, another JSON value, or None if it is empty.

    Raises:
        DataError: the record lacks the column.
    """
    if column not in record.fields:
        near = did_you_mean([column], record.fields)
        raise DataError(f"{record.where}: no column {quoted(column)} to predict; it has {listed(record.fields)}{near}")
    value = record.fields[column]
    if isinstance(value, str):
        return value.strip() or None
    return None if isinstance(value, float) and math.isnan(value) else value


def infer_kind(records: Sequence[Record], column: str) -> Inferred:
    """The kind of a target column.

    Lists in the column ``tertiary`` are coordinates, from which contacts are computed. Text or a list of the length of
    the sequence in every record is a class per residue, unless all are decimal numbers; other lists are labels, decimal
    numbers and more than 20 different integers are values, and anything else are classes.

    Raises:
        DataError: the column is empty, or has almost as many different texts as proteins.
    """
    values = [value_of(record, column) for record in records]
    pairs = [(record, value) for record, value in zip(records, values, strict=True) if value is not None]
    if not pairs:
        raise DataError(f"column {quoted(column)} has no value in any of {len(records)} records")
    if column == COORDINATES and all(_is_array(value) for _, value in pairs):
        return Inferred("contact", "its values are coordinates of residues")
    decimals = all(_is_number(value) and not is_integer(value) for _, value in pairs)
    if not decimals and all(_is_residue_text(record, value) for record, value in pairs):
        return Inferred("residue", "every value has the length of its sequence")
    if all(_list_of(value) is not None for _, value in pairs):
        if all(len(_list_of(value) or ()) == len(record.residues) for record, value in pairs):
            return Inferred("residue", "every value is a list with the length of its sequence")
        return Inferred("multilabel", "every value is a list")
    present = [value for _, value in pairs if not _is_missing_number(value)]
    if present and all(_is_number(value) for value in present):
        return _kind_of_numbers(present)
    _check_not_numbers(pairs, column)
    names = {class_name(value, record.where, column) for record, value in pairs}
    if len(names) > max(2, len(pairs) // 2):
        raise DataError(
            f"column {quoted(column)} has {len(names)} different texts in {len(pairs)} records, such as"
            f" {listed(sorted(names), 3)}: too many for classes. Choose another --target, or give --task-type"
        )
    return Inferred("classification", f"{len(names)} different texts")


def _check_not_numbers(pairs: Sequence[tuple[Record, Any]], column: str) -> None:
    """Refuse texts among numbers, of which each would become a class.

    Raises:
        DataError: most cells are numbers that would be values. Names the first other one.
    """
    present = [(record, value) for record, value in pairs if not _is_missing_number(value)]
    numbers = [value for _, value in present if _is_number(value)]
    if 2 * len(numbers) <= len(present) or _kind_of_numbers(numbers).kind != "regression":
        return
    record, other = next((record, value) for record, value in present if not _is_number(value))
    raise DataError(
        f"{record.where}: column {quoted(column)} has {quoted(other)}, while {len(numbers)} of {len(present)} cells are"
        " finite numbers. Correct or empty the cell, or give --task-type classification if the numbers are names"
    )


def _kind_of_numbers(values: Sequence[Any]) -> Inferred:
    if all(isinstance(value, bool) for value in values):
        return Inferred("classification", "its values are true and false")
    different = {str(value) for value in values}
    decimal = next((value for value in values if not is_integer(value)), None)
    if decimal is not None:
        return Inferred("regression", f"it has decimal numbers, such as {decimal}")
    if len(different) > MOST_INTEGER_CLASSES:
        return Inferred("regression", f"it has {len(different)} different integers")
    return Inferred("classification", f"it has {len(different)} different integers")


def _is_residue_text(record: Record, value: Any) -> bool:
    return isinstance(value, str) and len(value) > 1 and len(value) == len(record.residues)


def _list_of(value: Any) -> list[Any] | None:
    """A list, or that in a JSON text; None for other values."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = parse_json(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _list_of(value) is not None


def _is_missing_number(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.lower() in MISSING_NUMBERS)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | int | float):
        return True
    try:
        return isinstance(value, str) and value.isascii() and "_" not in value and math.isfinite(float(value))
    except ValueError:
        return False


def is_integer(value: Any) -> bool:
    """Whether a cell is an integer, or its text."""
    return isinstance(value, int) or (isinstance(value, str) and _INTEGER.fullmatch(value) is not None)


def class_name(value: Any, where: str, column: str) -> str:
    """The name of a class: text, or an integer or Boolean value as text.

    Raises:
        DataError: it is no such value.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value)) if isinstance(value, float) else str(value)
    raise DataError(f"{where}: column {quoted(column)} has {quoted(value)}, which is no name of a class")


def make_target(records: Sequence[Record], column: str, kind: str, task: str) -> Target:
    """The target of a column: of classes, those of all records.

    Args:
        records: all records.
        column: the column to predict.
        kind: one of :data:`tape.targets.OWN_TASK_TYPES`.
        task: name of the task.

    Raises:
        ConfigError: there is only one class.
        DataError: a value does not have this kind.
    """
    if kind == "regression":
        return Target(task, TaskType.VALUE, (column,))
    if kind == "contact":
        return Target(task, TaskType.RESIDUE_PAIR, (column,))
    find = {"residue": _residue_names, "multilabel": _label_names}.get(kind, _class_names)
    names = find(records, column)
    if len(names) < 2:
        raise ConfigError(f"column {quoted(column)} has {len(names)} classes ({listed(names)}); at least 2 are needed")
    return Target(task, OWN_TASK_TYPES[kind], (column,), tuple(_sorted(names)))


def _class_names(records: Sequence[Record], column: str) -> set[str]:
    values = [(record, value_of(record, column)) for record in records]
    return {class_name(value, record.where, column) for record, value in values if value is not None}


def _residue_names(records: Sequence[Record], column: str) -> set[str]:
    values = [(record, value_of(record, column)) for record in records]
    names = {name for record, value in values if value is not None for name in _entries(value, record, column)}
    return names - {_RESIDUE_UNLABELED}


def _label_names(records: Sequence[Record], column: str) -> set[str]:
    values = [(record, value_of(record, column)) for record in records]
    return {name for record, value in values if value is not None for name in _labels(value, record, column)}


def _labels(value: Any, record: Record, column: str) -> list[str]:
    """The labels of a protein: the entries of a list or its JSON text, or the parts of text between semicolons.

    Raises:
        DataError: a label is no name, or empty.
    """
    parts = _list_of(value)
    if parts is None:
        parts = value.split(LABEL_SEPARATOR) if isinstance(value, str) else [value]
    names = [class_name(part, record.where, column).strip() for part in parts]
    if "" in names:
        raise DataError(f"{record.where}: column {quoted(column)} has an empty label in {quoted(value)}")
    return names


def _sorted(names: set[str]) -> list[str]:
    """Numbers in their order, texts in that of the alphabet."""
    if all(is_integer(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))  # 1 and 01 in the same order on all ranks
    return sorted(names)


def label_of(record: Record, target: Target) -> Label | None:
    """The label of a record: a value, (T,) float64 of several values with ``nan`` where one is missing, the number of a
    class, (C,) int64 with 1 at the labels that apply and 0 elsewhere, (L,) int64 with -1 at residues without one, or of
    contacts (L, 3) float32 coordinates in Angstrom, NaN where they are unknown or the column ``valid_mask`` is 0.

    Returns:
        None if the cell is empty or, of a value, ``NA``, ``nan``, ``null``, ``none``, ``-`` or ``?``; of several
        values, if all are; or if no residue has coordinates.

    Raises:
        DataError: it is no value or class of the target. Names file, record and column.
    """
    if target.task_type == TaskType.VALUE:
        values = [_value_in(record, column) for column in target.columns]
        if not target.has_several_values:
            return values[0]
        return None if values == [None] * len(values) else np.array(values, dtype=np.float64)
    value = value_of(record, target.column)
    if value is None:
        return None
    if target.task_type == TaskType.RESIDUE_PAIR:
        points, valid = resolved_points(value, record.fields.get("valid_mask"), len(record.residues), record.where)
        return np.where(valid[:, None], points, np.nan).astype(np.float32) if valid.any() else None
    numbers = {name: number for number, name in enumerate(target.classes)}
    if target.task_type == TaskType.SEQUENCE_CLASS:
        return _number(class_name(value, record.where, target.column), numbers, record, target)
    if target.task_type == TaskType.MULTILABEL:
        applied = np.zeros(len(numbers), dtype=np.int64)
        applied[[_number(name, numbers, record, target) for name in _labels(value, record, target.column)]] = 1
        return applied
    labels = [
        -1 if name == _RESIDUE_UNLABELED else _number(name, numbers, record, target)
        for name in _entries(value, record, target.column)
    ]
    return np.array(labels, dtype=np.int64)


def _value_in(record: Record, column: str) -> float | None:
    value = value_of(record, column)
    return None if _is_missing_number(value) else number_of(value, column, record.where)


def _number(name: str, numbers: dict[str, int], record: Record, target: Target) -> int:
    if name not in numbers:
        raise DataError(
            f"{record.where}: column {quoted(target.column)} has {quoted(name)}, which is none of the model's classes:"
            f" {listed(target.classes)}. Empty the cell, or train a new model with the class"
        )
    return numbers[name]


def _entries(value: Any, record: Record, column: str) -> list[str]:
    """The class of each residue by name: the characters of text, or the entries of a list or its JSON text."""
    if isinstance(value, str) and value.startswith("[") and len(value) != len(record.residues):
        try:
            value = parse_json(value)
        except ValueError:
            raise DataError(f"{record.where}: column {quoted(column)} is neither text nor a JSON list") from None
    if not isinstance(value, str | list):
        raise DataError(f"{record.where}: column {quoted(column)} has {quoted(value)}, not a class per residue")
    if len(value) != len(record.residues):
        raise DataError(
            f"{record.where}: column {quoted(column)} has {len(value)} entries for {len(record.residues)} residues"
        )
    return [_RESIDUE_UNLABELED if entry is None else class_name(entry, record.where, column) for entry in value]
