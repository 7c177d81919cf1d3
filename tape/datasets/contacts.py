"""Contact prediction: which pairs of residues are within 8 Angstrom of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tape.io.records.labels import resolved_points

from .sources import Record
from .task_dataset import IGNORED, TaskDataset, collate_inputs, pad_sequences, task_record

CONTACT_DISTANCE = 8.0  # Angstrom
MINIMUM_SEPARATION = 6

Item = tuple[np.ndarray, np.ndarray, np.ndarray, int]


def contact_labels(positions: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Compute the contact labels of one protein, by TAPE's definition.

    Args:
        positions: (L, 3) coordinates in Angstrom.
        valid: (L,) bool. A residue with a non-finite coordinate is invalid too.

    Returns:
        (L, L) int64: 1 if the Euclidean distance is below 8.0, else 0; -1 if either residue is invalid or the
        sequence separation is less than 6.
    """
    positions = np.asarray(positions, dtype=np.float64)
    resolved = np.asarray(valid, dtype=bool) & np.isfinite(positions).all(axis=1)
    positions = np.where(resolved[:, None], positions, 0.0)
    # Axis by axis, which needs (L, L) arrays only, not one of (L, L, 3).
    squared = sum((axis[:, None] - axis[None, :]) ** 2 for axis in positions.T)
    labels = (squared < CONTACT_DISTANCE**2).astype(np.int64)
    labels[~(resolved[:, None] & resolved[None, :])] = IGNORED
    number = np.arange(len(positions))
    labels[np.abs(number[:, None] - number[None, :]) < MINIMUM_SEPARATION] = IGNORED
    return labels


class ProteinnetDataset(TaskDataset):
    """ProteinNet chains (AlQuraishi 2019): ``tertiary`` (L, 3) in Angstrom and, optionally, ``valid_mask`` (L,)."""

    task = task_record("contact_prediction")

    def __getitem__(self, index: int) -> Item:
        record, ids, mask = self.read_tokens(index)
        length = len(ids) - 2
        return ids, mask, contact_labels(*self._positions(index, record, length)), length

    def check_labels(self, index: int, record: Record, length: int) -> int:
        _, valid = self._positions(index, record, length)
        return int((~valid).sum())

    def _positions(self, index: int, record: Record, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(L, 3) coordinates, NaN where they are not known, and (L,) bool, whether a residue is valid."""
        where = self.data.where(index, record)
        tertiary = self.label(index, record, "tertiary")
        return resolved_points(tertiary, self.optional_label(record, "valid_mask"), length, where)

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch, with ``targets`` (B, L, L) int64 without special tokens, -1 at padding, and
        ``protein_length`` (B,)."""
        ids, masks, labels, lengths = zip(*batch, strict=True)
        return {
            **collate_inputs(ids, masks),
            "targets": torch.from_numpy(pad_sequences(labels, IGNORED)),
            "protein_length": torch.tensor(lengths, dtype=torch.int64),
        }
