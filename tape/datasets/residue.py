"""Tasks with one class per residue: secondary structure in three and eight states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tape.io.records.labels import SS3_CLASSES, SS8_CLASSES, residue_classes, residue_mask, three_states

from .index import sequence_of
from .sources import Record
from .task_dataset import IGNORED, TaskDataset, collate_inputs, pad_sequences, task_record

Item = tuple[np.ndarray, np.ndarray, np.ndarray]


class SecondaryStructureDataset(TaskDataset):
    """Three-state secondary structure: H 0, E 1, C 2 (Klausen et al. 2019).

    Labels are numbers or DSSP letters; see :mod:`tape.io.records.labels`. A record without ``ss3`` may have ``ss8``. If
    it has a ``valid_mask``, residues where it is 0 get the label -1. They are scored only in ``accuracy_all_residues``,
    since TAPE's published code scores them too.
    """

    task = task_record("secondary_structure")
    field = "ss3"
    letters: Mapping[str, int] = SS3_CLASSES

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        labels = self._labels(index, record, len(ids) - 2)
        return ids, mask, np.pad(labels, 1, constant_values=IGNORED)

    def check_labels(self, index: int, record: Record, length: int) -> int:
        return int((self._labels(index, record, length) == IGNORED).sum())

    def _labels(self, index: int, record: Record, length: int) -> np.ndarray:
        """(L,) int64, -1 where a residue is not labeled or not valid."""
        classes, valid = self._classes(index, record, length)
        return classes if valid is None else np.where(valid, classes, IGNORED)

    def _classes(self, index: int, record: Record, length: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(L,) classes regardless of ``valid_mask``, and the mask, (L,) bool; None if there is none."""
        where = self.data.where(index, record)
        mask = self.optional_label(record, "valid_mask")
        valid = None if mask is None else residue_mask(mask, length, "valid_mask", where)
        eight = self.optional_label(record, "ss8")
        if self.optional_label(record, self.field) is None and eight is not None:
            return three_states(residue_classes(eight, SS8_CLASSES, 8, length, "ss8", where, valid)), valid
        value = self.label(index, record, self.field)
        return residue_classes(value, self.letters, self.task.num_labels, length, self.field, where, valid), valid

    def unmasked_labels(self, index: int) -> np.ndarray:
        """(L + 2,) classes of all residues regardless of ``valid_mask``; -1 at ``<cls>`` and ``<sep>``.

        Where ``valid_mask`` is 0, a number that is not a class means that the residue has no label.
        """
        record = self.data[index]
        length = len(sequence_of(self.data, index, record)[0])
        return np.pad(self._classes(index, record, length)[0], 1, constant_values=IGNORED)

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
    letters = SS8_CLASSES
