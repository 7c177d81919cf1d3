"""Tasks with one class a residue: secondary structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .padding import pad_sequences
from .task_dataset import IGNORED, TaskDataset, collate_inputs, task_record

Item = tuple[np.ndarray, np.ndarray, np.ndarray]


class SecondaryStructureDataset(TaskDataset):
    """Three-state secondary structure, H 0, E 1, C 2 (Klausen et al. 2019).

    Residues whose ``valid_mask`` is 0, where a record has one, get label -1 and count nowhere. TAPE's published code
    scores them too, so its accuracy is over more residues than ours.
    """

    task = task_record("secondary_structure")
    field = "ss3"

    def __getitem__(self, index: int) -> Item:
        record = self.data[index]
        ids, mask = self.encode(index, record)
        length = len(ids) - 2
        labels = self.residue_label(index, record, self.field, length, np.int64).copy()
        if record.get("valid_mask") is not None:
            valid = self.residue_label(index, record, "valid_mask", length, np.float64)
            labels[valid == 0] = IGNORED
        self.check_classes(self.data.where(index, record), self.field, labels)
        return ids, mask, np.pad(labels, 1, constant_values=IGNORED)

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Adds ``targets`` (B, longest) int64, -1 at ``<cls>``, ``<sep>`` and padding."""
        ids, masks, labels = zip(*batch, strict=True)
        return {**collate_inputs(ids, masks), "targets": torch.from_numpy(pad_sequences(labels, IGNORED))}
