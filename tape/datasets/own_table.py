"""Splits of a user's own table as data sets, and its task in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tape.registry import TaskSpec, registry
from tape.tables.table import Table
from tape.tasks import TaskType
from tape.tokenizers import TAPETokenizer, as_tokenizer

from .contacts import contact_labels
from .sources import Record, RecordSource
from .task_dataset import IGNORED, TaskDataset, collate_inputs, pad_sequences

Item = tuple[np.ndarray, np.ndarray, Any]


class TableSplit(RecordSource):
    """The proteins of one split of a table, with ``id``, ``primary`` and ``label``."""

    def __init__(self, table: Table, split: str) -> None:
        self.path = table.path
        self.sha256 = table.sha256
        name = table.path.name
        if table.labels_file is not None:
            name = f"{name} with {table.labels_file.name}"
        self.provenance = {"name": name, "simulated": None}
        self._table, self._places = table, table.places(split)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self._places):
            raise IndexError(index)
        place, table = self._places[index], self._table
        return {"id": table.identifiers[place], "primary": table.sequences[place], "label": table.labels[place]}


class TableDataset(TaskDataset):
    """One split of a table as model inputs.

    Args:
        table: the table.
        split: name of the split; ``all`` for all of its proteins.
        tokenizer: the tokenizer, or the name of its vocabulary.

    Raises:
        DataError: no protein is in the split.
    """

    def __init__(self, table: Table, split: str, tokenizer: str | TAPETokenizer = "iupac") -> None:
        self.tokenizer = as_tokenizer(tokenizer)
        self.data = TableSplit(table, split)
        self._task_type = table.target.task_type

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        label = record["label"]
        if self._task_type == TaskType.RESIDUE_CLASS:
            label = np.pad(label, 1, constant_values=IGNORED)
        elif self._task_type == TaskType.RESIDUE_PAIR:
            label = contact_labels(label, np.isfinite(label).all(axis=1))
        return ids, mask, label

    def check_labels(self, index: int, record: Record, length: int) -> int | None:
        """The labels have been checked by :mod:`tape.tables`; returns the number of residues without one."""
        if self._task_type == TaskType.RESIDUE_PAIR:
            return int((~np.isfinite(record["label"]).all(axis=1)).sum())
        return int((record["label"] == IGNORED).sum()) if self._task_type == TaskType.RESIDUE_CLASS else None

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch, with ``targets``: (B, T) float32 values, ``nan`` where one of several is missing, (B,)
        int64 classes, (B, labels) int64 0 or 1, (B, longest) int64 classes of residues, or (B, L, L) int64 contacts
        with ``protein_length`` (B,); -1 where there is no label."""
        ids, masks, labels = zip(*batch, strict=True)
        if self._task_type == TaskType.VALUE:
            targets = torch.from_numpy(np.array(labels, dtype=np.float32).reshape(len(labels), -1))
        elif self._task_type == TaskType.SEQUENCE_CLASS:
            targets = torch.tensor(labels, dtype=torch.int64)
        elif self._task_type == TaskType.MULTILABEL:
            targets = torch.from_numpy(np.stack(labels))
        elif self._task_type == TaskType.RESIDUE_PAIR:
            lengths = torch.tensor([len(label) for label in labels], dtype=torch.int64)
            contacts = torch.from_numpy(pad_sequences(labels, IGNORED))
            return {**collate_inputs(ids, masks), "targets": contacts, "protein_length": lengths}
        else:
            targets = torch.from_numpy(pad_sequences(labels, IGNORED))
        return {**collate_inputs(ids, masks), "targets": targets}


class TableSplits:
    """Opens the splits of a table as a task's data set class does. The data directory is not used.

    Attributes:
        table: the table.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __call__(
        self, data_path: str, split: str, tokenizer: str | TAPETokenizer = "iupac", in_memory: bool = False
    ) -> TableDataset:
        return TableDataset(self.table, split, tokenizer)


def table_of(spec: TaskSpec) -> Table | None:
    """The table of a task; None for a task of the registry."""
    return spec.dataset_entry.table if isinstance(spec.dataset_entry, TableSplits) else None


def register_table(table: Table) -> TaskSpec:
    """Register the task of a table, in place of an earlier one of its name."""
    return registry.register_target(table.target, TableSplits(table))
