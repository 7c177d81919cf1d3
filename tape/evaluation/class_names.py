"""Names of the classes that a model predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tape.registry import registry


def class_names(task: str, config: Mapping[str, Any] | None) -> Sequence[str]:
    """Names of the classes: those of the table that the model was trained on, otherwise the task's; empty without any.

    Args:
        task: name of the task.
        config: the model's configuration, whose ``target`` describes the column of a user's own table.
    """
    target = (config or {}).get("target")
    names = target.get("classes") if isinstance(target, Mapping) else None
    if isinstance(names, list | tuple) and names:
        return [str(name) for name in names]
    spec = registry.task_name_mapping.get(task)
    return () if spec is None else spec.task.class_names
