"""Proteins longer than a model's position table, cut to their first residues (``--length crop``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from .index import DatasetIndex, index_of, unmasked_labels_of

Batch = dict[str, Any]


class CroppedDataset(Dataset[Any]):
    """Another data set, whose batches have at most ``positions`` tokens a protein; all else is that data set's.

    Args:
        dataset: with ``__getitem__`` and ``collate_fn`` as TAPE's.
        positions: rows of the model's position table, ``<cls>`` and ``<sep>`` included.
    """

    def __init__(self, dataset: Any, positions: int) -> None:
        self._dataset, self._positions = dataset, positions

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for before __init__ has run, by pickle and copy
            raise AttributeError(name)
        if name != "unmasked_labels":
            return getattr(self._dataset, name)
        labels = unmasked_labels_of(self._dataset)
        if labels is None:
            raise AttributeError(name)
        return self._cropped(labels)

    def _cropped(self, labels_of: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
        """A function that gives a protein's labels, one a token, for the tokens that are left."""

        def labels(index: int) -> np.ndarray:
            whole = labels_of(index)
            long = len(whole) > self._positions
            return np.append(whole[: self._positions - 1], whole[-1]) if long else whole

        return labels

    def build_index(self) -> DatasetIndex | None:
        """The data set's dataset_index, with the lengths that are left."""
        found = index_of(self._dataset)
        return None if found is None else replace(found, lengths=np.minimum(found.lengths, self._positions - 2))

    def collate_fn(self, items: Sequence[Any]) -> Batch:
        return crop_batch(self._dataset.collate_fn(items), self._positions)


def crop_batch(batch: Batch, positions: int) -> Batch:
    """A batch whose proteins have at most ``positions`` tokens: the first, and ``<sep>`` after them.

    Args:
        batch: ``input_ids`` and ``input_mask`` (B, S); ``targets`` of any of TAPE's forms; ``protein_length`` (B,).
        positions: most tokens.
    """
    ids, mask = batch["input_ids"], batch["input_mask"]
    if ids.shape[1] <= positions:
        return batch
    tokens = (mask != 0).sum(1)
    cropped = {**batch, "input_ids": _crop_tokens(ids, tokens, positions), "input_mask": mask[:, :positions]}
    targets = batch.get("targets")
    if isinstance(targets, Tensor) and targets.ndim == 3:
        cropped["targets"] = targets[:, : positions - 2, : positions - 2]
    elif isinstance(targets, Tensor) and targets.shape == ids.shape:
        cropped["targets"] = _crop_tokens(targets, tokens, positions)
    if "protein_length" in batch:
        cropped["protein_length"] = batch["protein_length"].clamp(max=positions - 2)
    return cropped


def _crop_tokens(values: Tensor, tokens: Tensor, positions: int) -> Tensor:
    """(B, S) -> (B, positions); what stood at ``<sep>`` of a protein that is cut stands at its new end."""
    cropped = values[:, :positions].clone()
    long = tokens > positions
    cropped[long, positions - 1] = values[long, tokens[long] - 1]
    return cropped
