"""Names of the classes that a model predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tape.registry import registry


def class_names(task: str, config: Mapping[str, Any] | None) -> Sequence[str]:
    """Names of the classes: those in the model's configuration, otherwise the task's; empty without any."""
    names = (config or {}).get("class_names")
    if isinstance(names, list | tuple):
        return [str(name) for name in names]
    spec = registry.task_name_mapping.get(task)
    return () if spec is None else spec.task.class_names
