"""Unlabeled proteins for masked language modeling and (next-token) language modeling."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tape.io.records import RecordOptions
from tape.masking import mask_tokens
from tape.tokenizers import TAPETokenizer

from .task_dataset import IGNORED, DrawnExamples, TaskDataset, collate_inputs, pad_sequences, task_record

Item = tuple[np.ndarray, np.ndarray, np.ndarray]


class _TokenDataset(TaskDataset):
    """Data set whose targets are token ids."""

    has_labels = False  # none in the records

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch, with ``targets`` (B, longest) int64, -1 at positions that are not predicted."""
        ids, masks, labels = zip(*batch, strict=True)
        return {
            **collate_inputs(ids, masks, self.tokenizer.pad_id),
            "targets": torch.from_numpy(pad_sequences(labels, IGNORED)),
        }


class MaskedLanguageModelingDataset(DrawnExamples, _TokenDataset):
    """BERT's masking of 15 % of the residues, drawn anew in every epoch; see :func:`tape.masking.mask_tokens`.

    Args:
        seed: seed of the masks. The other arguments are those of :class:`TaskDataset`.
    """

    task = task_record("masked_language_modeling")

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        split: str,
        tokenizer: str | TAPETokenizer = "iupac",
        in_memory: bool = False,
        seed: int = 42,
        options: RecordOptions = RecordOptions(),
    ) -> None:
        super().__init__(data_path, split, tokenizer, in_memory, options)
        self._seed = seed

    def __getitem__(self, index: int) -> Item:
        _, ids, mask = self.read_tokens(index)
        corrupted, labels = mask_tokens(ids, self.tokenizer, self.generator(index))
        return corrupted, mask, labels


class LanguageModelingDataset(_TokenDataset):
    """Next-token prediction: the targets are the token ids themselves, which the model shifts by one."""

    task = task_record("language_modeling")

    def __getitem__(self, index: int) -> Item:
        _, ids, mask = self.read_tokens(index)
        return ids, mask, ids.copy()
