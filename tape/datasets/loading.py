"""Loaders: planned batches of a data set, read by as many worker processes as the work is worth."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tape.errors import ProteinLMError
from tape.runtime.cpu import usable_cores

from .batching import PlannedBatches

# Below this many proteins starting worker processes takes longer than reading the data.
_SMALL_DATASET = 2000

Batch = dict[str, Any]


def worker_count(requested: int, proteins: int) -> int:
    """Worker processes to start: none for a small data set, and never more than the machine has cores.

    Args:
        requested: ``--num_workers``.
        proteins: examples an epoch.
    """
    if proteins < _SMALL_DATASET:
        return 0
    return max(0, min(requested, usable_cores()))


class _ErrorsAsItems(Dataset[Any]):
    """Hands our errors over as items: raised in a worker, they would arrive wrapped in a traceback's text."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self._dataset[index]
        except ProteinLMError as error:
            return error

    def collate(self, items: list[Any]) -> Any:
        for item in items:
            if isinstance(item, ProteinLMError):
                return item
        return self._dataset.collate_fn(items)


def load_batches(
    dataset: Any, batches: list[np.ndarray], *, num_workers: int, seed: int = 0, pin_memory: bool = False
) -> Iterator[Batch]:
    """Collated batches in the order of the plan.

    Args:
        dataset: with ``__getitem__`` and ``collate_fn``.
        batches: records of each batch.
        num_workers: 0 reads in this process.
        seed: of whatever randomness a third party's data set draws in its workers.
        pin_memory: for copies to a GPU.

    Raises:
        ProteinLMError: what the data set raised.
    """
    guarded = _ErrorsAsItems(dataset)
    generator = torch.Generator().manual_seed(seed)
    loader: DataLoader[Any] = DataLoader(
        guarded,
        batch_sampler=PlannedBatches(batches),
        collate_fn=guarded.collate,
        num_workers=num_workers,
        generator=generator,
        pin_memory=pin_memory,
    )
    logging.getLogger(__name__).debug("%d batches, %d worker processes", len(batches), num_workers)
    for batch in loader:
        if isinstance(batch, ProteinLMError):
            raise batch
        yield batch
