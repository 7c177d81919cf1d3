"""Loading a split of a registered task."""

from __future__ import annotations

import logging
from typing import Any

from tape.registry import TaskSpec
from tape.tasks import TaskType

from .index import index_of
from .labels import infer_task_type

logger = logging.getLogger(__name__)


def load_split(spec: TaskSpec, data_dir: str, split: str, tokenizer: str) -> Any:
    """A split of the task; logs how many characters of its sequences were replaced.

    Raises:
        ProteinLMError: the split is missing or damaged.
    """
    dataset = spec.dataset_class(data_dir, split, tokenizer)
    log_replaced_characters(dataset, split)
    return dataset


def log_replaced_characters(dataset: Any, source: str) -> None:
    """Warn if characters of the sequences were replaced on reading, such as lower-case letters or J."""
    dataset_index = index_of(dataset)
    if dataset_index is not None and dataset_index.changes:
        changes = ", ".join(f"{name} {count}" for name, count in sorted(dataset_index.changes.items()))
        logger.warning("characters replaced in the sequences of %s: %s", source, changes)


def task_type_of(spec: TaskSpec, dataset: Any) -> TaskType:
    """The registered task type, or the one that the first example's targets belong to."""
    return spec.task_type or infer_task_type(dataset.collate_fn([dataset[0]]))
