"""TAPE's loaders: data sets by task, and batches of proteins of similar length. From ``tape.utils``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler

from tape.datasets.index import index_of
from tape.datasets.loading import worker_count
from tape.registry import registry

from .processes import check_single_process


def get_effective_num_gpus(local_rank: int, n_gpu: int) -> int:
    """Number of devices that share a batch: ``n_gpu``.

    Raises:
        ConfigError: see :func:`tape.compatibility.processes.check_single_process`.
    """
    check_single_process(local_rank)
    return n_gpu


def get_effective_batch_size(batch_size: int, local_rank: int, n_gpu: int, gradient_accumulation_steps: int = 1) -> int:
    """Proteins per device and forward pass of a step of ``batch_size`` proteins."""
    return batch_size // (gradient_accumulation_steps * get_effective_num_gpus(local_rank, n_gpu))


def get_num_train_optimization_steps(dataset: Sized, batch_size: int, num_train_epochs: int) -> int:
    """Optimizer steps of a run, with the last, smaller batch of each epoch (bug 10 in docs/compatibility.md)."""
    return math.ceil(len(dataset) / batch_size) * num_train_epochs


def setup_dataset(task: str, data_dir: str | Path, split: str, tokenizer: str) -> Any:
    """The data set of a registered task's split.

    Raises:
        ProteinLMError: an unknown task, or data that can't be used.
    """
    return registry.get_task_spec(task).dataset_class(data_dir, split, tokenizer)


def setup_loader(
    dataset: Any, batch_size: int, local_rank: int, n_gpu: int, gradient_accumulation_steps: int, num_workers: int
) -> DataLoader[Any]:
    """A loader of shuffled batches, each of proteins of similar length.

    Args:
        dataset: with ``collate_fn``; the first field of an example is its token ids.
        batch_size: proteins per optimizer step.
        local_rank: -1.
        n_gpu: number of devices; ``batch_size`` includes all of them.
        gradient_accumulation_steps: batches per optimizer step.
        num_workers: processes that read data; at most one per core, none for small data sets.

    Raises:
        ConfigError: ``batch_size`` is too small for the accumulation, or ``local_rank`` is that of one of several
            processes.
    """
    size = get_effective_batch_size(batch_size, local_rank, n_gpu, gradient_accumulation_steps) * n_gpu
    found = index_of(dataset)
    lengths, length_of = (dataset, _tokens) if found is None else (found.lengths, int)
    sampler = BucketBatchSampler(RandomSampler(dataset), size, False, length_of, lengths)
    workers = worker_count(num_workers, len(dataset))
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=dataset.collate_fn, num_workers=workers)


def _tokens(example: Any) -> int:
    return len(example[0])


class SortedSampler(Sampler[int]):
    """Indices in ascending order of a key.

    Args:
        dataset: the examples.
        sort_key: key of an example.
        indices: which to yield; None: all.
    """

    def __init__(self, dataset: Any, sort_key: Callable[[Any], Any], indices: Iterable[int] | None = None) -> None:
        chosen = range(len(dataset)) if indices is None else indices
        self.dataset = dataset
        self.sort_key = sort_key
        self.sorted_indices: Sequence[int] = sorted(chosen, key=lambda index: sort_key(dataset[index]))

    def __iter__(self) -> Iterator[int]:
        return iter(self.sorted_indices)

    def __len__(self) -> int:
        return len(self.sorted_indices)


class BucketBatchSampler(BatchSampler):
    """Batches of similar examples: buckets of the sampler's order are sorted, cut, and their batches shuffled.

    Args:
        sampler: order of the indices.
        batch_size: examples per batch.
        drop_last: leave out smaller batches.
        sort_key: key of an example.
        dataset: the examples.
        bucket_size_multiplier: batches per bucket.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        batch_size: int,
        drop_last: bool,
        sort_key: Callable[[Any], Any],
        dataset: Any,
        bucket_size_multiplier: int = 100,
    ) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.sort_key = sort_key
        self.dataset = dataset
        self.bucket_sampler = BatchSampler(sampler, batch_size * bucket_size_multiplier, False)

    def __iter__(self) -> Iterator[list[int]]:
        for bucket in self.bucket_sampler:
            ordered = SortedSampler(self.dataset, self.sort_key, bucket)
            batches = list(BatchSampler(ordered, self.batch_size, self.drop_last))
            for number in torch.randperm(len(batches)).tolist():
                yield batches[number]
