"""TAPE's ``tape.registry.TAPETaskSpec``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tape.registry import TaskSpec
from tape.tasks import Task


class TAPETaskSpec(TaskSpec):
    """A :class:`tape.registry.TaskSpec` from TAPE's arguments.

    Args:
        name: name of the task.
        dataset: dataset class.
        num_labels: number of classes; -1 if the task has none.
        models: model type -> class.
    """

    def __init__(self, name: str, dataset: Any, num_labels: int = -1, models: Mapping[str, Any] | None = None) -> None:
        super().__init__(Task(name, num_labels=num_labels), dataset, dict(models or {}))
