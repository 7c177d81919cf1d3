"""What the data sets of all tasks share: where their file lies, how a protein is encoded, how a batch is padded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tape.errors import DataError, UnknownResidueError
from tape.tasks import TASKS, Task
from tape.tokenizers import TAPETokenizer, as_tokenizer

from .index import DatasetIndex, build_index, field_of, sequence_of
from .sources import Record, RecordSource, split_source

IGNORED = -1


def open_split(data_path: str | os.PathLike[str], folder: str, split: str, in_memory: bool = False) -> RecordSource:
    """``DATA/folder/folder_SPLIT.lmdb``, or the same in another format (:func:`tape.datasets.sources.split_source`).

    Any split that lies there is admitted.

    Raises:
        DataError: no such split; names those that are there.
    """
    directory = Path(data_path) / folder
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; this task reads {folder}_{split}.lmdb from there")
    source = split_source(directory, f"{folder}_{split}", in_memory)
    if source is not None:
        return source
    present = {found.name.removeprefix(f"{folder}_").partition(".")[0] for found in directory.glob(f"{folder}_*")}
    path = directory / f"{folder}_{split}.lmdb"
    raise DataError(f"{path}: no split {split!r}; splits there: {', '.join(sorted(present)) or 'none'}")


class DrawnExamples:
    """Of a data set whose examples are drawn: a pure function of (seed, epoch, record).

    An evaluated split is never given an epoch, so its examples are the same at every validation (defect 21).
    """

    _seed: int
    _epoch = 0

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Draw other examples from now on; called before each epoch of training, which are counted from 0."""
        self._seed, self._epoch = seed, epoch + 1  # none of training is drawn as those of an evaluated split

    def generator(self, index: int) -> np.random.Generator:
        """What one record's example is drawn by."""
        return np.random.default_rng([self._seed, self._epoch, int(index)])


class TaskDataset(Dataset[Any]):
    """Records of one split as model inputs. ``__getitem__`` gives (token ids, mask, label), as TAPE's do.

    Args:
        data_path: the data directory that holds the task's folder.
        split: part of the file's name.
        tokenizer: a vocabulary's name, or the tokenizer.
        in_memory: keep records once read.

    Raises:
        DataError: no such split, or a damaged file.
    """

    task: Task
    has_labels = True

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        split: str,
        tokenizer: str | TAPETokenizer = "iupac",
        in_memory: bool = False,
    ) -> None:
        self.tokenizer = as_tokenizer(tokenizer)
        self.data: RecordSource = open_split(data_path, self.task.folder, split, in_memory)
        self.data.has_labels = self.has_labels

    def __len__(self) -> int:
        return len(self.data)

    def build_index(self) -> DatasetIndex:
        """Lengths and ids of all records; read once."""
        return build_index(self.data)

    def encode(self, index: int, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (L + 2,) with ``<cls>`` and ``<sep>``, and a mask of ones."""
        sequence, _ = sequence_of(self.data, index, record)
        try:
            ids = self.tokenizer.encode(sequence)
        except UnknownResidueError as error:
            raise UnknownResidueError(f"{self.data.where(index, record)}: {error}") from None
        return ids, np.ones_like(ids)

    def label(self, index: int, record: Record, name: str) -> Any:
        """A field that must be there."""
        return field_of(self.data, index, record, name)

    def residue_label(self, index: int, record: Record, name: str, length: int, dtype: Any) -> np.ndarray:
        """A field with one entry (or row) a residue.

        Raises:
            DataError: missing, of another length, or not numbers.
        """
        value = self.label(index, record, name)
        where = self.data.where(index, record)
        try:
            numbers = np.asarray(value, dtype=np.float64)  # not the dtype at once: 0.5 would pass for class 0
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: field {name!r} does not hold numbers ({error})") from None
        if np.issubdtype(dtype, np.integer) and not (np.isfinite(numbers) & (numbers == np.rint(numbers))).all():
            raise DataError(f"{where}: field {name!r} does not hold whole numbers")
        array = numbers.astype(dtype)
        if array.ndim == 0 or len(array) != length:
            found = "a single value" if array.ndim == 0 else f"{len(array)} entries"
            raise DataError(f"{where}: field {name!r} has {found} for {length} residues")
        return array

    def check_classes(self, where: str, name: str, labels: np.ndarray) -> None:
        """Check that classes lie in [0, num_labels), or are -1.

        Raises:
            DataError: one does not.
        """
        wrong = labels[(labels < IGNORED) | (labels >= self.task.num_labels)]
        if wrong.size:
            allowed = f"allowed are 0 to {self.task.num_labels - 1}, and -1"
            raise DataError(f"{where}: field {name!r} holds {int(wrong.flat[0])}; {allowed}")


def collate_inputs(ids: Sequence[np.ndarray], masks: Sequence[np.ndarray], pad_id: int = 0) -> dict[str, Tensor]:
    """``input_ids`` and ``input_mask``, both (B, longest), padded with 0."""
    return {
        "input_ids": torch.from_numpy(pad_sequences(ids, pad_id)),
        "input_mask": torch.from_numpy(pad_sequences(masks, 0)),
    }


def task_record(name: str) -> Task:
    """The built-in record that a data set class belongs to."""
    return TASKS[name]


def pad_sequences(sequences: Sequence[Any], constant_value: float = 0, dtype: Any = None) -> np.ndarray:
    """Stack arrays of one rank into one array, each filled up at its far ends (TAPE's function).

    Args:
        sequences: B arrays of the same number of dimensions, each of any size.
        constant_value: what fills up.
        dtype: of the result; the first array's when None.

    Returns:
        (B, largest size in each dimension...).
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    shape = tuple(np.max([array.shape for array in arrays], axis=0).astype(int))
    padded = np.full((len(arrays), *shape), constant_value, dtype=dtype or arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return padded
