"""Tasks with one class per residue: secondary structure in three and eight states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tape.io.records.labels import SS3_CLASSES, SS8_CLASSES, residue_classes, residue_mask, three_states

from .index import sequence_of
from .sources import Record, RecordSource
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
    # The example that was read last, as (source, index, classes regardless of valid_mask). An evaluation asks for these
    # next, and would have to read and decode the record once more.
    _last: tuple[RecordSource, int, np.ndarray] | None = None

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        classes, valid = self._classes(index, record, len(ids) - 2)
        self._last = self.data, index, classes
        return ids, mask, np.pad(_valid(classes, valid), 1, constant_values=IGNORED)

    def check_labels(self, index: int, record: Record, length: int) -> int:
        return int((_valid(*self._classes(index, record, length)) == IGNORED).sum())

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
        if self._last is not None and self._last[0] is self.data and self._last[1] == index:
            classes = self._last[2]
        else:
            record = self.data[index]
            classes, _ = self._classes(index, record, len(sequence_of(self.data, index, record)[0]))
        return np.pad(classes, 1, constant_values=IGNORED)

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch, with ``targets`` (B, longest) int64, -1 at ``<cls>``, ``<sep>`` and padding."""
        ids, masks, labels = zip(*batch, strict=True)
        return {**collate_inputs(ids, masks), "targets": torch.from_numpy(pad_sequences(labels, IGNORED))}


def _valid(classes: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """(L,) int64, -1 where a residue is not labeled or not valid."""
    return classes if valid is None else np.where(valid, classes, IGNORED)


class EightStateDataset(SecondaryStructureDataset):
    """Eight-state secondary structure in the order of NetSurfP-2.0 and TAPE: G 0, H 1, I 2, B 3, E 4, S 5, T 6, C 7.

    Reads field ``ss8`` of the three-state task's files (``ss_q8`` in ProteinLM's Megatron-LM code).
    """

    task = task_record("secondary_structure_8")
    field = "ss8"
    letters = SS8_CLASSES
