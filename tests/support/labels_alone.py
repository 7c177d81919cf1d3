"""The data of a run that has targets and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tape.finetuning.data import TrainingData


class LabelsAlone:
    """A data set of labels alone."""

    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels

    def __getitem__(self, index: int) -> Any:
        return self.labels[index]

    def collate_fn(self, batch: list[Any]) -> dict[str, torch.Tensor]:
        return {"targets": torch.tensor(batch)}


def data_of(labels: list[Any], indices: list[int] | None = None) -> TrainingData:
    """The data of a run on these labels, or on those with the given indices."""
    chosen = np.arange(len(labels)) if indices is None else np.array(indices)
    return TrainingData(LabelsAlone(labels), np.ones(len(labels), dtype=np.int64), chosen)
