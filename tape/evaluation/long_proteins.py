"""Proteins longer than the model's position table (``--length``): refused, cropped, or read in windows.

No protein is dropped or cut without a message (bug 16 in docs/compatibility.md).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from torch import nn

from tape.datasets.cropping import CroppedDataset
from tape.datasets.index import index_of, lengths_of
from tape.datasets.sources import RecordSource
from tape.errors import ConfigError, DataError
from tape.tasks import TaskType

from .windows import WindowedModel

logger = logging.getLogger(__name__)


def position_limit(model: nn.Module) -> int | None:
    """Rows of the model's position table; None for models that take proteins of any length.

    Raises:
        ConfigError: the table has no row beside those of ``<cls>`` and ``<sep>``.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(limit, int):
        return None
    if limit < 3:
        raise ConfigError(f"max_position_embeddings {limit} leaves no residue beside <cls> and <sep>; give 3 or more")
    return limit


def fit_long_proteins(
    policy: str, model: nn.Module, dataset: Any, task_type: TaskType, split: str, indices: np.ndarray | None = None
) -> tuple[nn.Module, Any]:
    """Fit a data set to the model's position table under a ``--length`` policy.

    Args:
        policy: error, crop or window.
        model: a task model or an encoder.
        dataset: a data set. One without an index is not checked; the model raises an error for a long protein.
        task_type: type of the task.
        split: name of the split, for messages.
        indices: the proteins to use; None means all.

    Returns:
        The model, which reads windows under the policy ``window``, and the data set, cropped under ``crop``.

    Raises:
        DataError: a protein is longer than the position table, and the policy is ``error``. Names file, record, length
            and limit.
    """
    limit = position_limit(model)
    if limit is None:
        return model, dataset
    if policy == "error":
        check_position_limit(dataset, limit, indices)
        return model, dataset
    lengths, longest = lengths_of(dataset), limit - 2
    lengths = lengths if indices is None else lengths[indices]
    if count := int((lengths > longest).sum()):
        treatment = (
            f"cropped to their first {longest} residues" if policy == "crop" else f"read in windows of {longest}"
        )
        logger.warning("--length %s: %d of %d proteins of %s are %s", policy, count, len(lengths), split, treatment)
    if policy == "crop":
        return model, CroppedDataset(dataset, limit)
    return WindowedModel(model, task_type, limit), dataset


def check_position_limit(dataset: Any, max_positions: int | None, indices: np.ndarray | None = None) -> None:
    """Refuse proteins that exceed a model's position table.

    Args:
        dataset: checked if it has an index; otherwise the model raises an error for a long protein.
        max_positions: rows of the table, two of which are for ``<cls>`` and ``<sep>``; None means no limit.
        indices: the proteins to use; None means all.

    Raises:
        DataError: a protein is too long. Names file, record, length and limit.
    """
    dataset_index = index_of(dataset)
    if max_positions is None or dataset_index is None:
        return
    without = "" if indices is None else ", or --max_length N to exclude long proteins from training"
    indices = np.arange(len(dataset_index.lengths)) if indices is None else indices
    limit = max_positions - 2
    over = indices[dataset_index.lengths[indices] > limit]
    if over.size == 0:
        return
    worst = int(over[np.argmax(dataset_index.lengths[over])])
    source = getattr(dataset, "data", None)
    name = dataset_index.identifiers[worst]
    where = source.where(worst, {"id": name}) if isinstance(source, RecordSource) else f"record {worst} ({name})"
    raise DataError(
        f"{where}: {dataset_index.lengths[worst]} residues, but the model has positions for {limit}"
        f" ({max_positions} less <cls> and <sep>); {over.size} of {indices.size} proteins are longer than that."
        f" Use a model with more positions, --length crop or --length window{without}"
    )
