"""Tasks with one class per residue: secondary structure in three and eight states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .index import sequence_of
from .task_dataset import IGNORED, TaskDataset, collate_inputs, pad_sequences, task_record

Item = tuple[np.ndarray, np.ndarray, np.ndarray]


class SecondaryStructureDataset(TaskDataset):
    """Three-state secondary structure: H 0, E 1, C 2 (Klausen et al. 2019).

    If a record has a ``valid_mask``, residues where it is 0 get the label -1. They are scored only in
    ``accuracy_all_residues``, since TAPE's published code scores them too.
    """

    task = task_record("secondary_structure")
    field = "ss3"

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        length = len(ids) - 2
        labels = self.residue_label(index, record, self.field, length, np.int64).copy()
        if record.get("valid_mask") is not None:
            valid = self.residue_label(index, record, "valid_mask", length, np.float64)
            labels[valid == 0] = IGNORED
        self.check_classes(self.data.where(index, record), self.field, labels)
        return ids, mask, np.pad(labels, 1, constant_values=IGNORED)

    def unmasked_labels(self, index: int) -> np.ndarray:
        """(L + 2,) classes of all residues regardless of ``valid_mask``; -1 at ``<cls>`` and ``<sep>``.

        Where ``valid_mask`` is 0, a number that is not a class means that the residue has no label.
        """
        record = self.data[index]
        length = len(sequence_of(self.data, index, record)[0])
        labels = self.residue_label(index, record, self.field, length, np.int64)
        labels = np.where((labels >= 0) & (labels < self.task.num_labels), labels, IGNORED)
        return np.pad(labels, 1, constant_values=IGNORED)

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch, with ``targets`` (B, longest) int64, -1 at ``<cls>``, ``<sep>`` and padding."""
        ids, masks, labels = zip(*batch, strict=True)
        return {**collate_inputs(ids, masks), "targets": torch.from_numpy(pad_sequences(labels, IGNORED))}


class EightStateDataset(SecondaryStructureDataset):
    """Eight-state secondary structure in the order of NetSurfP-2.0 and TAPE: G 0, H 1, I 2, B 3, E 4, S 5, T 6, C 7.

    Reads field ``ss8`` of the three-state task's files (``ss_q8`` in ProteinLM's Megatron-LM code).
    """

    task = task_record("secondary_structure_8")
    field = "ss8"
