"""Cropping of proteins that are longer than a model's position table (``--length crop``)."""

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
    """Wraps a data set so that its batches have at most ``positions`` tokens per protein.

    Args:
        dataset: a data set with TAPE's ``__getitem__`` and ``collate_fn``. Every other attribute is looked up in it.
        positions: rows of the model's position table, including ``<cls>`` and ``<sep>``.
    """

    def __init__(self, dataset: Any, positions: int) -> None:
        self._dataset, self._positions = dataset, positions

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle and copy look attributes up before __init__ has run
            raise AttributeError(name)
        if name != "unmasked_labels":
            return getattr(self._dataset, name)
        labels = unmasked_labels_of(self._dataset)
        if labels is None:
            raise AttributeError(name)
        return self._cropped(labels)

    def _cropped(self, labels_of: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
        """Wrap ``unmasked_labels`` to return the labels of the remaining tokens."""

        def labels(index: int) -> np.ndarray:
            whole = labels_of(index)
            long = len(whole) > self._positions
            return np.append(whole[: self._positions - 1], whole[-1]) if long else whole

        return labels

    def build_index(self) -> DatasetIndex | None:
        """The index of the wrapped data set, with the cropped lengths."""
        found = index_of(self._dataset)
        return None if found is None else replace(found, lengths=np.minimum(found.lengths, self._positions - 2))

    def collate_fn(self, items: Sequence[Any]) -> Batch:
        return crop_batch(self._dataset.collate_fn(items), self._positions)


def crop_batch(batch: Batch, positions: int) -> Batch:
    """Crop each protein to its first ``positions - 1`` tokens, followed by ``<sep>``.

    Args:
        batch: ``input_ids`` and ``input_mask`` (B, S), and optionally ``targets`` (B, S), (B, L, L) or one per protein,
            and ``protein_length`` (B,).
        positions: maximum number of tokens per protein.
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
    """(B, S) -> (B, positions). The last position of a cropped protein gets its value at ``<sep>``."""
    cropped = values[:, :positions].clone()
    long = tokens > positions
    cropped[long, positions - 1] = values[long, tokens[long] - 1]
    return cropped
