"""Tasks with one label per protein: fluorescence, stability, remote homology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tape.errors import DataError

from .sources import Record
from .task_dataset import TaskDataset, collate_inputs, task_record

Item = tuple[np.ndarray, np.ndarray, Any]


class _ValueDataset(TaskDataset):
    """One number per protein, the first entry of a field."""

    field: str

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        return ids, mask, self._value(index, record)

    def _value(self, index: int, record: Record) -> float:
        where = self.data.where(index, record)
        try:
            value = float(np.asarray(self.label(index, record, self.field), dtype=np.float64).reshape(-1)[0])
        except (TypeError, ValueError, IndexError):
            raise DataError(f"{where}: field {self.field!r} does not contain a number") from None
        if not np.isfinite(value):
            raise DataError(f"{where}: field {self.field!r} is {value}, not a finite number")
        return value

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
        where = self.data.where(index, record)
        try:
            number = float(self.label(index, record, "fold_label"))
            label = int(number)
            if label != number:
                raise ValueError(number)
        except (TypeError, ValueError, OverflowError):  # nan and inf too
            raise DataError(f"{where}: field 'fold_label' is not an integer") from None
        self.check_classes(where, "fold_label", np.asarray([label]))
        return ids, mask, label

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch, with ``targets`` (B,) int64."""
        ids, masks, labels = zip(*batch, strict=True)
        return {**collate_inputs(ids, masks), "targets": torch.tensor(labels, dtype=torch.int64)}
