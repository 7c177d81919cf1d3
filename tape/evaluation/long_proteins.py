"""Proteins longer than the model's position table (``--length``): refused, cropped, or read in windows.

No protein is dropped or cut without a message (bug 16 in docs/compatibility.md).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from torch import nn

from tape.datasets.cropping import CroppedDataset
from tape.datasets.index import check_position_limit, lengths_of
from tape.errors import ConfigError
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
    policy: str, model: nn.Module, dataset: Any, task_type: TaskType, split: str
) -> tuple[nn.Module, Any]:
    """Model and data set for one pass over a split under a ``--length`` policy.

    Raises:
        DataError: a protein is longer than the position table, and the policy is ``error``.
    """
    limit = position_limit(model)
    if limit is None:
        return model, dataset
    if policy == "error":
        check_position_limit(dataset, limit)
        return model, dataset
    warn_of_long_proteins(lengths_of(dataset), limit, policy, split)
    if policy == "crop":
        return model, CroppedDataset(dataset, limit)
    return WindowedModel(model, task_type, limit), dataset


def warn_of_long_proteins(lengths: np.ndarray, limit: int, policy: str, split: str) -> None:
    """Log how many proteins of a split are cropped or read in windows."""
    longest = limit - 2
    count = int((lengths > longest).sum())
    treatment = f"cropped to their first {longest} residues" if policy == "crop" else f"read in windows of {longest}"
    if count:
        logger.warning("--length %s: %d of %d proteins of %s are %s", policy, count, len(lengths), split, treatment)
