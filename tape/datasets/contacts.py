"""Contact prediction: which residue pairs lie within 8 Angstrom of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tape.errors import DataError

from .task_dataset import IGNORED, TaskDataset, collate_inputs, pad_sequences, task_record

CONTACT_DISTANCE = 8.0  # Angstrom
MINIMUM_SEPARATION = 6

Item = tuple[np.ndarray, np.ndarray, np.ndarray, int]


def contact_labels(positions: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Contact labels of one protein (TAPE's definition).

    Args:
        positions: (L, 3) coordinates in Angstrom.
        valid: (L,) bool; a residue with a coordinate that is not finite is invalid too.

    Returns:
        (L, L) int64: 1 where the Euclidean distance is below 8.0, else 0; -1 where a residue is invalid or the pair is
        closer than 6 in sequence.
    """
    positions = np.asarray(positions, dtype=np.float64)
    resolved = np.asarray(valid, dtype=bool) & np.isfinite(positions).all(axis=1)
    positions = np.where(resolved[:, None], positions, 0.0)
    # axis by axis: three (L, L) sums instead of one (L, L, 3) array
    squared = sum((axis[:, None] - axis[None, :]) ** 2 for axis in positions.T)
    labels = (squared < CONTACT_DISTANCE**2).astype(np.int64)
    labels[~(resolved[:, None] & resolved[None, :])] = IGNORED
    number = np.arange(len(positions))
    labels[np.abs(number[:, None] - number[None, :]) < MINIMUM_SEPARATION] = IGNORED
    return labels


class ProteinnetDataset(TaskDataset):
    """Chains with coordinates: ``tertiary`` (L, 3) in Angstrom and ``valid_mask`` (L,) (AlQuraishi 2019)."""

    task = task_record("contact_prediction")

    def __getitem__(self, index: int) -> Item:
        record = self.data[index]
        ids, mask = self.encode(index, record)
        length = len(ids) - 2
        positions = self.residue_label(index, record, "tertiary", length, np.float64)
        if positions.shape != (length, 3):
            where = self.data.where(index, record)
            raise DataError(f"{where}: field 'tertiary' has shape {positions.shape}, not {(length, 3)}")
        valid = self.residue_label(index, record, "valid_mask", length, np.float64) != 0
        return ids, mask, contact_labels(positions, valid), length

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Adds ``targets`` (B, L, L) int64 without special tokens, -1 at padding, and ``protein_length`` (B,)."""
        ids, masks, labels, lengths = zip(*batch, strict=True)
        return {
            **collate_inputs(ids, masks),
            "targets": torch.from_numpy(pad_sequences(labels, IGNORED)),
            "protein_length": torch.tensor(lengths, dtype=torch.int64),
        }
