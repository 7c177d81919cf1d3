"""Opening and reading a set of variants, for the benchmarks that score them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tape.datasets.index import load_split
from tape.errors import ConfigError
from tape.registry import registry
from tape.tasks import TaskType


def open_split(data_dir: str, task: str, split: str, given: str) -> Any:
    """A split of a regression task, whose vocabulary is ``iupac``.

    Args:
        data_dir, task, split: names.
        given: how the task was given, for messages.

    Raises:
        ConfigError: the task is no regression of proteins.
        ProteinLMError: the split can't be used.
    """
    spec = registry.get_task_spec(task)
    if spec.task_type != TaskType.VALUE:
        raise ConfigError(f"{given} has no value per protein")
    return load_split(spec.dataset_class, data_dir, split, "iupac")


def read_split(dataset: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Token ids without special tokens, and labels, of a split of a regression task."""
    items = [dataset[index] for index in range(len(dataset))]
    return [np.asarray(item[0])[1:-1] for item in items], np.array([float(item[2]) for item in items])
