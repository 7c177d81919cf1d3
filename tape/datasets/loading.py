"""Data loaders for planned batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tape.errors import ProteinLMError
from tape.runtime.cpu import usable_cores
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory
from tape.runtime.stop_signals import ignore_stop_signals_in_worker, stop_signals_blocked

# Below this number of proteins, starting worker processes takes longer than reading the data.
_SMALL_DATASET = 2000

Batch = dict[str, Any]


def worker_count(requested: int, proteins: int) -> int:
    """Number of worker processes: none for a small data set, and at most one per usable core.

    Args:
        requested: ``--num_workers``.
        proteins: examples per epoch.
    """
    if proteins < _SMALL_DATASET:
        return 0
    return max(0, min(requested, usable_cores()))


class _PlannedBatches:
    """Batch sampler that yields the batches of a plan."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            yield batch.tolist()


class _ErrorsAsItems(Dataset[Any]):
    """Returns our errors as items. Raised in a worker process, they would arrive wrapped in the text of a traceback."""

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
    """Yield collated batches in the order of the plan.

    Args:
        dataset: a data set with ``__getitem__`` and ``collate_fn``.
        batches: record numbers of each batch.
        num_workers: worker processes; 0 reads in this process.
        seed: base seed of the workers, for third-party data sets that draw random numbers.
        pin_memory: page-lock the batches, for faster copies to a GPU.

    Raises:
        ProteinLMError: raised by the data set, or out of memory.
    """
    guarded = _ErrorsAsItems(dataset)
    generator = torch.Generator().manual_seed(seed)
    loader: DataLoader[Any] = DataLoader(
        guarded,
        batch_sampler=_PlannedBatches(batches),
        collate_fn=guarded.collate,
        num_workers=num_workers,
        generator=generator,
        pin_memory=pin_memory,
        worker_init_fn=ignore_stop_signals_in_worker,
    )
    logging.getLogger(__name__).debug("%d batches, %d worker processes", len(batches), num_workers)
    with stop_signals_blocked():  # the workers are started here
        iterator = iter(loader)
    remedies = MemoryRemedies(always=("a smaller --batch_size",) if max(map(len, batches), default=0) > 1 else ())
    for _ in batches:
        with explain_out_of_memory("the data loader", None, remedies):
            batch = next(iterator)
        if isinstance(batch, ProteinLMError):
            raise batch
        yield batch
