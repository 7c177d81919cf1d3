"""The target of a model that was trained on a user's own table: its task, names of columns and classes, and scales.

Stored as ``target`` in the model's ``config.json``, so that evaluation and prediction need nothing but the model.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import ConfigError, listed, quoted
from .tasks import TaskType

LABEL_SEPARATOR = ";"  # between the labels of a protein in text
_BREAKING = ("Cc", "Zl", "Zp")  # control characters and separators of lines and paragraphs
COORDINATES = "tertiary"  # column of the points of residues, which contacts are computed from
OWN_TASK_TYPES: dict[str, TaskType] = {
    "regression": TaskType.VALUE,
    "classification": TaskType.SEQUENCE_CLASS,
    "multilabel": TaskType.MULTILABEL,
    "residue": TaskType.RESIDUE_CLASS,
    "contact": TaskType.RESIDUE_PAIR,
}
_KIND_OF = {task_type: kind for kind, task_type in OWN_TASK_TYPES.items()}


class Scale(NamedTuple):
    """Mean and standard deviation of a value over the training split, in its unit."""

    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Target:
    """What a model predicts.

    Attributes:
        task: name of the task.
        task_type: type of the task: one or several values, a class or labels per protein, a class per residue, or
            contacts.
        columns: columns of the table: one, or for values one or more.
        classes: names of the classes in the order of their numbers; empty for values and contacts.
        scales: scale of each column. The head predicts ``(value - mean) / std``, and the model returns the value. If
            empty, no value is standardized.
        atom: of contacts, the atom of structure files whose position is that of its residue; None if the coordinates
            were those of a table.
        half_widths: of each column, half the width of the interval of a predicted value, in its unit
            (:mod:`tape.metrics.prediction_intervals`); None for a column without one. Empty: there are none.

    Raises:
        ConfigError: a scale is not finite, a half width is negative, there are fewer than two classes, a column is
            named twice, or there are several columns of classes.
    """

    task: str
    task_type: TaskType
    columns: tuple[str, ...]
    classes: tuple[str, ...] = ()
    scales: tuple[Scale, ...] = ()
    atom: str | None = None
    half_widths: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        check_columns(self.columns)
        if not self.scales:
            object.__setattr__(self, "scales", (Scale(),) * len(self.columns))
        if len(self.scales) != len(self.columns):
            raise ConfigError(f"target: {len(self.scales)} scales of {len(self.columns)} columns")
        for mean, std in self.scales:
            if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
                raise ConfigError(f"target: mean {mean} and std {std} are no scale; std must be positive")
        widths = [0.0 if width is None else width for width in self.half_widths]
        if widths and (len(widths) != len(self.columns) or not all(0 <= width < math.inf for width in widths)):
            raise ConfigError(f"target: half_width_90 needs a number of at least 0 per column, not {quoted(widths)}")
        if self.task_type == TaskType.VALUE:
            return
        if len(self.columns) > 1:
            raise ConfigError(f"target: {listed(self.columns)} are several columns; only values can have several")
        if self.has_classes and len(self.classes) < 2:
            raise ConfigError(f"target {self.column}: {len(self.classes)} classes; at least 2 are needed")

    @property
    def column(self) -> str:
        """The column, or the names of several in words."""
        return ", ".join(self.columns)

    @property
    def has_several_values(self) -> bool:
        """Whether several values per protein are predicted, each of which may be missing."""
        return len(self.columns) > 1

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of several values; empty for one value and for classes."""
        return self.columns if self.has_several_values else ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what the model's outputs are for: the classes, or several values; empty for one value."""
        return self.classes or self.value_names

    @property
    def kind(self) -> str:
        """The value of ``--task-type``."""
        return _KIND_OF[self.task_type]

    @property
    def has_classes(self) -> bool:
        """Whether a class or labels are predicted, per protein or per residue."""
        return self.task_type not in (TaskType.VALUE, TaskType.RESIDUE_PAIR)

    @property
    def is_multilabel(self) -> bool:
        """Whether any number of the classes can apply to a protein."""
        return self.task_type == TaskType.MULTILABEL

    @property
    def num_labels(self) -> int:
        """Number of classes; -1 for values and contacts."""
        return len(self.classes) or -1

    def to_dict(self) -> dict[str, Any]:
        """JSON values for ``config.json``; only those that this type of task has.

        Of several values, ``column``, ``mean``, ``std`` and ``half_width_90`` are lists.
        """
        fields: dict[str, Any] = {"task": self.task, "type": self.kind, "column": self.column}
        if self.task_type == TaskType.RESIDUE_PAIR:
            return {**fields, "atom": self.atom}
        if self.has_classes:
            return {**fields, "classes": list(self.classes)}
        values: dict[str, Sequence[Any]] = {"mean": [one.mean for one in self.scales]}
        values["std"] = [one.std for one in self.scales]
        if self.half_widths:
            values["half_width_90"] = self.half_widths
        if self.has_several_values:
            return {**fields, "column": list(self.columns), **{name: list(side) for name, side in values.items()}}
        return {**fields, **{name: side[0] for name, side in values.items()}}

    @classmethod
    def from_dict(cls, fields: Any) -> Target:
        """The target in a ``config.json``.

        Raises:
            ConfigError: a field is missing or of another type.
        """
        if not isinstance(fields, Mapping):
            raise ConfigError(f"target must be an object, not {quoted(fields)}")
        task, kind, columns = fields.get("task"), fields.get("type"), _as_list(fields.get("column"))
        classes = fields.get("classes", [])
        texts = columns and all(isinstance(name, str) for name in (task, kind, *columns))
        if not texts or kind not in OWN_TASK_TYPES:
            raise ConfigError(
                f"target needs the texts task, column and type ({', '.join(OWN_TASK_TYPES)}), not {quoted(fields)}"
            )
        if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
            raise ConfigError(f"target: classes must be a list of names, not {quoted(classes)}")
        scale = [
            _as_list(fields.get(name, [default] * len(columns))) for name, default in (("mean", 0.0), ("std", 1.0))
        ]
        numbers = [[_float_of(value) for value in side] for side in scale]
        if None in [value for side in numbers for value in side]:
            raise ConfigError(f"target: mean and std must be numbers, not {quoted(scale)}")
        if {len(side) for side in scale} != {len(columns)}:
            raise ConfigError(f"target: mean and std must have a number for each column, not {quoted(scale)}")
        atom = fields.get("atom")
        if not isinstance(atom, str | None):
            raise ConfigError(f"target: atom must be the name of an atom, not {quoted(atom)}")
        scales = tuple(Scale(mean or 0.0, std or 0.0) for mean, std in zip(*numbers, strict=True))
        given = _as_list(fields["half_width_90"]) if "half_width_90" in fields else []
        widths = [_float_of(width) for width in given]
        if any(width is None and value is not None for width, value in zip(widths, given, strict=True)):
            raise ConfigError(f"target: half_width_90 must be numbers, or null, not {quoted(given)}")
        return cls(str(task), OWN_TASK_TYPES[str(kind)], tuple(columns), tuple(classes), scales, atom, tuple(widths))


def check_columns(columns: Sequence[str]) -> None:
    """Check that no column is a target twice, and that each name fits in a line of a log and a table.

    Raises:
        ConfigError: one is given twice, or has control characters. Names it.
    """
    broken = [column for column in columns if any(unicodedata.category(letter) in _BREAKING for letter in column)]
    if broken:
        raise ConfigError(f"target {quoted(broken[0])} has control characters, such as a line break; rename the column")
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise ConfigError(f"target {quoted(twice[0])} is given twice; name each column once")


def value_names_of(config: Any) -> tuple[str, ...]:
    """Names of the values that a model predicts, if there are several; see :attr:`Target.value_names`.

    Args:
        config: the model's configuration, or its fields.
    """
    fields = config.get("target") if isinstance(config, Mapping) else getattr(config, "target", None)
    return () if fields is None else Target.from_dict(fields).value_names


def _as_list(value: Any) -> list[Any]:
    """A list as it is, any other value as a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _float_of(value: Any) -> float | None:
    """A JSON number; None for other values, and for an integer beyond the range of floats."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def value_scales(config: Any) -> tuple[Scale, ...]:
    """The scale of each value that a model predicts; (0, 1) if it is not standardized.

    They are those of its target or, of a model of a built-in task, ``value_scale`` {mean, std} of its configuration.

    Raises:
        ConfigError: ``value_scale`` has no such numbers, or its deviation is not positive.
    """
    target = target_of(config)
    if target is not None:
        return target.scales
    fields = getattr(config, "value_scale", None)
    if fields is None:
        return (Scale(),)
    names = ("mean", "std")
    mean, std = (_float_of(fields.get(name)) for name in names) if isinstance(fields, Mapping) else (None, None)
    if mean is None or std is None or not math.isfinite(mean) or not math.isfinite(std):
        raise ConfigError(f"value_scale needs the numbers mean and std, not {quoted(fields)}")
    if not std > 0:
        raise ConfigError(f"value_scale: std must be positive, not {std:g}")
    return (Scale(mean, std),)


def target_of(config: Any) -> Target | None:
    """The target of a model's configuration; None if it was not trained on a table."""
    fields = getattr(config, "target", None)
    return None if fields is None else Target.from_dict(fields)
