"""Unlabeled proteins of any sequence file, for embedding and prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tape.io.records import RecordOptions
from tape.tokenizers import TAPETokenizer, as_tokenizer

from .sources import RecordSource, dataset_factory
from .task_dataset import TaskDataset, collate_inputs, task_record

Item = tuple[str, np.ndarray, np.ndarray]


class EmbedDataset(TaskDataset):
    """Proteins of one file, without labels.

    Args:
        data_file: any file that :func:`tape.datasets.dataset_factory` reads, or records that are open already.
        tokenizer: a vocabulary's name, or the tokenizer.
        in_memory: cache the records that have been read.
        options: format and columns of the file.
    """

    task = task_record("embed")
    has_labels = False

    def __init__(
        self,
        data_file: str | os.PathLike[str] | RecordSource,
        tokenizer: str | TAPETokenizer = "iupac",
        in_memory: bool = False,
        options: RecordOptions = RecordOptions(),
    ) -> None:
        self.tokenizer = as_tokenizer(tokenizer)
        self.data = (
            data_file
            if isinstance(data_file, RecordSource)
            else dataset_factory(data_file, in_memory=in_memory, options=options)
        )
        self.data.has_labels = self.has_labels

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        return str(record.get("id", index)), ids, mask

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Any]:
        """Collate to ``ids`` (list of B), ``input_ids`` and ``input_mask`` (B, longest)."""
        identifiers, ids, masks = zip(*batch, strict=True)
        return {"ids": list(identifiers), **collate_inputs(ids, masks)}
