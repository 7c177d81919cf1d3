"""Examples of residue classes with their labels outside ``valid_mask``, which only an evaluation scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .index import unmasked_labels_of
from .labels import Batch

UNMASKED = "unmasked_labels"


class WithUnmaskedLabels(Dataset[Any]):
    """Wraps a data set that has ``unmasked_labels``, so that they are read with each example, by the same process.

    A collated batch has one more key, UNMASKED: the list of what ``unmasked_labels`` returns for each protein. It is
    not an input of a model and has to be removed before.

    Args:
        dataset: a data set for which :func:`tape.datasets.index.unmasked_labels_of` is not None.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    @cached_property
    def _labels(self) -> Callable[[int], np.ndarray]:
        # found in the process that reads, since the function of a cropped data set can't be sent to another
        labels = unmasked_labels_of(self._dataset)
        assert labels is not None
        return labels

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        example = self._dataset[index]
        return example, self._labels(index)

    def collate_fn(self, items: Sequence[tuple[Any, np.ndarray]]) -> Batch:
        examples, labels = zip(*items, strict=True)
        return {**self._dataset.collate_fn(list(examples)), UNMASKED: list(labels)}
