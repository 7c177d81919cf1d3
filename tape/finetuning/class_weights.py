"""Weights of classes in the loss, so that rare classes count as much as frequent ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tape.configs import CONFIG_NAME, ProteinConfig
from tape.errors import CheckpointError, ConfigError, quoted

from .data import TrainingData


def balanced_class_weights(data: TrainingData, num_labels: int) -> tuple[float, ...]:
    """Weights that are inversely proportional to the numbers of labels: n / (C * n_c), as scikit-learn's ``balanced``.

    C is the number of classes with a label. Those without one, which have no part in training, have weight 1.

    Args:
        data: the proteins of a run, of which each label of a protein or residue counts.
        num_labels: number of classes.

    Raises:
        ConfigError: no protein has a label, or a label is no class of the task.
    """
    counts = np.zeros(num_labels, dtype=np.int64)
    for targets in data.targets():
        labels = targets.numpy().reshape(-1)
        found = np.bincount(labels[labels >= 0], minlength=num_labels)
        if found.size > num_labels:
            raise ConfigError(f"--class_weights: a label is {found.size - 1}, but the task has {num_labels} classes")
        counts += found
    present = counts > 0
    if not present.any():
        raise ConfigError("--class_weights: no training protein has a label")
    weights = np.ones(num_labels)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return tuple(weights.tolist())


def stored_weights(directory: Path, num_labels: int) -> tuple[float, ...]:
    """``class_weights`` of a saved epoch, which its weights have been trained with.

    Args:
        directory: the saved epoch.
        num_labels: number of classes.

    Raises:
        CheckpointError: its configuration has none, or not one for each class. Names it.
        ProteinLMError: its configuration is missing or damaged.
    """
    file = directory / CONFIG_NAME
    weights = getattr(ProteinConfig.from_json_file(file), "class_weights", None)
    if (
        not isinstance(weights, list | tuple)
        or len(weights) != num_labels
        or not all(isinstance(weight, int | float) for weight in weights)
    ):
        raise CheckpointError(
            f"{file}: class_weights must be a list of {num_labels} numbers, one for each class, not {quoted(weights)};"
            " restore the file, or start a new run from this model without --resume_from_checkpoint"
        )
    return tuple(weights)


def describe_weights(weights: Sequence[float], names: Sequence[str]) -> str:
    """The weights with the names or numbers of their classes; of many classes, the range."""
    if len(weights) > 20:
        return f"class weights from {min(weights):.4g} to {max(weights):.4g}"
    shown = names or [str(number) for number in range(len(weights))]
    return "class weights: " + ", ".join(f"{name} {weight:.4g}" for name, weight in zip(shown, weights, strict=True))
