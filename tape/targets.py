"""The target of a model that was trained on a user's own table: its task, names of columns and classes, and scale.

Stored as ``target`` in the model's ``config.json``, so that evaluation and prediction need nothing but the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError, quoted
from .tasks import TaskType

LABEL_SEPARATOR = ";"  # between the labels of a protein in text
COORDINATES = "tertiary"  # column of the points of residues, which contacts are computed from
OWN_TASK_TYPES: dict[str, TaskType] = {
    "regression": TaskType.VALUE,
    "classification": TaskType.SEQUENCE_CLASS,
    "multilabel": TaskType.MULTILABEL,
    "residue": TaskType.RESIDUE_CLASS,
    "contact": TaskType.RESIDUE_PAIR,
}
_KIND_OF = {task_type: kind for kind, task_type in OWN_TASK_TYPES.items()}


@dataclass(frozen=True)
class Target:
    """What a model predicts.

    Attributes:
        task: name of the task.
        task_type: type of the task: a value, class or labels per protein, a class per residue, or contacts.
        column: column of the table.
        classes: names of the classes in the order of their numbers; empty for values and contacts.
        mean, std: of a value over the training split. The head predicts ``(value - mean) / std``, and the model
            returns the value.
        atom: of contacts, the atom of structure files whose position is that of its residue; None if the coordinates
            were those of a table.

    Raises:
        ConfigError: the scale is not finite, or there are fewer than two classes.
    """

    task: str
    task_type: TaskType
    column: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    atom: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ConfigError(f"target: mean {self.mean} and std {self.std} are no scale; std must be positive")
        if self.has_classes and len(self.classes) < 2:
            raise ConfigError(f"target {self.column}: {len(self.classes)} classes; at least 2 are needed")

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
        """JSON values for ``config.json``; only those that this type of task has."""
        fields: dict[str, Any] = {"task": self.task, "type": self.kind, "column": self.column}
        if self.task_type == TaskType.VALUE:
            return {**fields, "mean": self.mean, "std": self.std}
        if self.task_type == TaskType.RESIDUE_PAIR:
            return {**fields, "atom": self.atom}
        return {**fields, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, fields: Any) -> Target:
        """The target in a ``config.json``.

        Raises:
            ConfigError: a field is missing or of another type.
        """
        if not isinstance(fields, Mapping):
            raise ConfigError(f"target must be an object, not {quoted(fields)}")
        names = [fields.get(name) for name in ("task", "type", "column")]
        classes, scale = fields.get("classes", []), (fields.get("mean", 0.0), fields.get("std", 1.0))
        mean, std = map(_float_of, scale)
        if not all(isinstance(name, str) for name in names) or names[1] not in OWN_TASK_TYPES:
            raise ConfigError(
                f"target needs the texts task, column and type ({', '.join(OWN_TASK_TYPES)}), not {quoted(fields)}"
            )
        if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
            raise ConfigError(f"target: classes must be a list of names, not {quoted(classes)}")
        if mean is None or std is None:
            raise ConfigError(f"target: mean and std must be numbers, not {quoted(scale)}")
        atom = fields.get("atom")
        if not isinstance(atom, str | None):
            raise ConfigError(f"target: atom must be the name of an atom, not {quoted(atom)}")
        task, kind, column = map(str, names)
        return cls(task, OWN_TASK_TYPES[kind], column, tuple(classes), mean, std, atom)


def _float_of(value: Any) -> float | None:
    """A JSON number; None for other values, and for an integer beyond the range of floats."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def value_scale(config: Any) -> tuple[float, float]:
    """Mean and deviation by which a model's values are standardized; (0, 1) if they are not.

    They are those of its target or, of a model of a built-in task, ``value_scale`` {mean, std} of its configuration.

    Raises:
        ConfigError: ``value_scale`` has no such numbers, or its deviation is not positive.
    """
    target = target_of(config)
    if target is not None:
        return target.mean, target.std
    fields = getattr(config, "value_scale", None)
    if fields is None:
        return 0.0, 1.0
    names = ("mean", "std")
    mean, std = (_float_of(fields.get(name)) for name in names) if isinstance(fields, Mapping) else (None, None)
    if mean is None or std is None or not math.isfinite(mean) or not math.isfinite(std):
        raise ConfigError(f"value_scale needs the numbers mean and std, not {quoted(fields)}")
    if not std > 0:
        raise ConfigError(f"value_scale: std must be positive, not {std:g}")
    return mean, std


def target_of(config: Any) -> Target | None:
    """The target of a model's configuration; None if it was not trained on a table."""
    fields = getattr(config, "target", None)
    return None if fields is None else Target.from_dict(fields)
