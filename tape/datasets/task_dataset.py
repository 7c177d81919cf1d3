"""Base class of the tasks' data sets: opening a split, encoding a protein, reading labels, and padding batches."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tape.errors import DataError, UnknownResidueError, quoted
from tape.io.records import LABELED_SUFFIXES, RecordOptions, list_suffixes
from tape.tasks import TASKS, Task
from tape.tokenizers import TAPETokenizer, as_tokenizer

from .index import DatasetIndex, build_index, describes_examples, field_of, sequence_of
from .sources import Record, RecordSource, split_source

IGNORED = -1


def open_split(
    data_path: str | os.PathLike[str],
    folder: str,
    split: str,
    in_memory: bool = False,
    options: RecordOptions = RecordOptions(),
) -> RecordSource:
    """Open ``DATA/folder/folder_SPLIT.lmdb``, or the same in another format
    (:func:`tape.datasets.sources.split_source`). Any name of a split is allowed.

    Raises:
        DataError: there is no such split, or its file has a format without labels. Lists what exists or is allowed.
    """
    directory = Path(data_path) / folder
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; this task reads {folder}_{split}.lmdb from there")
    source = split_source(directory, f"{folder}_{split}", in_memory, options)
    if source is not None:
        return source
    unread = sorted(found.name for found in directory.glob(f"{glob.escape(f'{folder}_{split}')}.*"))
    if unread:
        raise DataError(
            f"{directory / unread[0]}: labels can't be read from this format; it must be"
            f" {list_suffixes(LABELED_SUFFIXES)}, or a directory {folder}_{split} of .npz files"
        )
    present = {found.name.removeprefix(f"{folder}_").partition(".")[0] for found in directory.glob(f"{folder}_*")}
    path = directory / f"{folder}_{split}.lmdb"
    raise DataError(f"{path}: no split {quoted(split)}; splits there: {', '.join(sorted(present)) or 'none'}")


class DrawnExamples:
    """Mixin for data sets with random examples. An example is a pure function of (seed, epoch, record).

    ``set_epoch`` is never called for an evaluated split, so its examples are the same in every evaluation (bug 21 in
    docs/compatibility.md).
    """

    _seed: int
    _epoch = 0

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Select the examples of a training epoch, counted from 0. Called before each epoch."""
        self._seed, self._epoch = seed, epoch + 1  # 0 is the epoch of evaluated splits

    def generator(self, index: int) -> np.random.Generator:
        """Random number generator of one record's example."""
        return np.random.default_rng([self._seed, self._epoch, int(index)])


class TaskDataset(Dataset[Any]):
    """Records of one split as model inputs. ``__getitem__`` returns (token ids, mask, label), as in TAPE.

    Args:
        data_path: the data directory, which contains the task's folder.
        split: name of the split, part of the file name.
        tokenizer: the tokenizer, or the name of its vocabulary.
        in_memory: cache the records that have been read.
        options: columns of the sequence and the id.

    Raises:
        DataError: there is no such split, or the file is damaged.
    """

    task: Task
    has_labels = True

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        split: str,
        tokenizer: str | TAPETokenizer = "iupac",
        in_memory: bool = False,
        options: RecordOptions = RecordOptions(),
    ) -> None:
        self.tokenizer = as_tokenizer(tokenizer)
        self.data: RecordSource = open_split(data_path, self.task.folder, split, in_memory, options)
        self.data.has_labels = self.has_labels

    def __len__(self) -> int:
        return len(self.data)

    def build_index(self) -> DatasetIndex:
        """Lengths and ids of all records, from one pass over the file, which also checks their labels."""
        return build_index(self.data, self.check_labels if describes_examples(self, "check_labels") else None)

    def check_labels(self, index: int, record: Record, length: int) -> int | None:
        """Check the labels of a record of ``length`` residues; overridden by tasks that have labels.

        Returns:
            The number of residues without a label; None if labels are not per residue.

        Raises:
            DataError: the labels can't be used. Names file, record and field.
        """
        return None

    def encode(self, index: int, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (L + 2,) with ``<cls>`` and ``<sep>``, and a mask of ones."""
        sequence, _ = sequence_of(self.data, index, record)
        try:
            ids = self.tokenizer.encode(sequence)
        except UnknownResidueError as error:
            raise UnknownResidueError(f"{self.data.where(index, record)}: {error}") from None
        return ids, np.ones_like(ids)

    def read_tokens(self, index: int) -> tuple[Record, np.ndarray, np.ndarray]:
        """A record, with its token ids and mask; see :meth:`encode`."""
        record = self.data[index]
        ids, mask = self.encode(index, record)
        return record, ids, mask

    def label(self, index: int, record: Record, name: str) -> Any:
        """A required field of a record."""
        return field_of(self.data, index, record, name)

    def optional_label(self, record: Record, name: str) -> Any:
        """A field of a record; None if it has none."""
        value = record.get(name)
        return None if isinstance(value, str) and not value else value


def collate_inputs(ids: Sequence[np.ndarray], masks: Sequence[np.ndarray], pad_id: int = 0) -> dict[str, Tensor]:
    """Collate to ``input_ids`` and ``input_mask``, both (B, longest); the mask is padded with 0."""
    return {
        "input_ids": torch.from_numpy(pad_sequences(ids, pad_id)),
        "input_mask": torch.from_numpy(pad_sequences(masks, 0)),
    }


def task_record(name: str) -> Task:
    """The built-in task of a data set class."""
    return TASKS[name]


def pad_sequences(sequences: Sequence[Any], constant_value: float = 0, dtype: Any = None) -> np.ndarray:
    """Stack arrays of different sizes, each padded at the end of every dimension (TAPE's function).

    Args:
        sequences: B arrays with the same number of dimensions.
        constant_value: the padding value.
        dtype: data type of the result; that of the first array if None.

    Returns:
        (B, ...) with the largest size in each dimension.
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    shape = tuple(np.max([array.shape for array in arrays], axis=0).astype(int))
    padded = np.full((len(arrays), *shape), constant_value, dtype=dtype or arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return padded
