"""Tasks with one label per protein: fluorescence, stability, remote homology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tape.io.records.labels import class_of, number_of

from .sources import Record
from .task_dataset import TaskDataset, collate_inputs, task_record

Item = tuple[np.ndarray, np.ndarray, Any]


class _ValueDataset(TaskDataset):
    """One number per protein, or a list with one number, as in TAPE's files."""

    field: str

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        return ids, mask, self._value(index, record)

    def check_labels(self, index: int, record: Record, length: int) -> None:
        self._value(index, record)

    def _value(self, index: int, record: Record) -> float:
        return number_of(self.label(index, record, self.field), self.field, self.data.where(index, record))

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch, with ``targets`` (B, 1) float32."""
        ids, masks, values = zip(*batch, strict=True)
        targets = torch.tensor(values, dtype=torch.float32).unsqueeze(1)
        return {**collate_inputs(ids, masks), "targets": targets}


class FluorescenceDataset(_ValueDataset):
    """Log fluorescence intensity of GFP variants (Sarkisyan et al. 2016)."""

    task = task_record("fluorescence")
    field = "log_fluorescence"


class StabilityDataset(_ValueDataset):
    """Stability score of designed mini proteins (Rocklin et al. 2017)."""

    task = task_record("stability")
    field = "stability_score"


class RemoteHomologyDataset(TaskDataset):
    """SCOP fold of a domain, one of 1195 classes (Hou et al. 2018)."""

    task = task_record("remote_homology")

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        return ids, mask, self._fold(index, record)

    def check_labels(self, index: int, record: Record, length: int) -> None:
        self._fold(index, record)

    def _fold(self, index: int, record: Record) -> int:
        where = self.data.where(index, record)
        return class_of(self.label(index, record, "fold_label"), self.task.num_labels, "fold_label", where)

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch, with ``targets`` (B,) int64."""
        ids, masks, labels = zip(*batch, strict=True)
        return {**collate_inputs(ids, masks), "targets": torch.tensor(labels, dtype=torch.int64)}
