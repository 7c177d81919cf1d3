"""What a collated batch says: how many labels it has, what its shape is, which rows are padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tape.errors import ConfigError
from tape.tasks import TaskType

_CLASS_SHAPES = (TaskType.SEQUENCE_CLASS, TaskType.RESIDUE_CLASS, TaskType.MASKED_LM, TaskType.LANGUAGE_MODEL)
# Keys that go along with a batch but are no model's input.
_NOT_INPUTS = ("ids",)

Batch = dict[str, Any]


def model_inputs(batch: Batch, device: torch.device) -> Batch:
    """The keyword arguments of the model's ``forward``, on its device."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name not in _NOT_INPUTS
    }


def count_targets(targets: Tensor) -> int:
    """How many labels a mean loss is taken over: labels from 0 on, or proteins where targets are values."""
    if targets.is_floating_point():
        return int(targets.shape[0])
    return int((targets >= 0).sum())


def count_labels(shape: TaskType, batch: Batch) -> int:
    """How much a batch's mean loss is a mean over: :func:`count_targets`, or proteins where each has several labels."""
    if shape == TaskType.PAIR_GEOMETRY:
        return int(batch["msa1hot"].shape[0])
    return count_targets(batch["targets"])


def sum_of(prediction: Tensor | dict[str, Tensor]) -> Tensor:
    """A finite number that all of a prediction enters: keeps its graph where there is no loss."""
    parts = prediction.values() if isinstance(prediction, dict) else [prediction]
    return torch.stack([torch.nan_to_num(part.float()).sum() for part in parts]).sum()


def infer_task_type(batch: Batch) -> TaskType:
    """The shape of a task that did not state one, from a batch.

    Raises:
        ConfigError: targets of no known arrangement.
    """
    targets, ids = batch["targets"], batch["input_ids"]
    if targets.is_floating_point() and targets.numel() == targets.shape[0]:
        return TaskType.VALUE
    if not targets.is_floating_point() and targets.ndim == 1:
        return TaskType.SEQUENCE_CLASS
    if not targets.is_floating_point() and targets.shape == ids.shape:
        return TaskType.RESIDUE_CLASS
    if not targets.is_floating_point() and targets.ndim == 3:
        return TaskType.RESIDUE_PAIR
    raise ConfigError(
        f"targets of type {targets.dtype} and shape {tuple(targets.shape)} belong to no known kind of task;"
        " name one with registry.register_task(..., task_type=...)"
    )


def split_proteins(shape: TaskType, prediction: Any, batch: Batch) -> list[tuple[Any, Any]]:
    """(prediction, target) of each protein of a batch, without padding, as numpy copies (of geometry, dictionaries).

    Args:
        shape: of the task.
        prediction: the model's, batch first.
        batch: as the model got it, with ``targets`` and, where the shape needs it, ``input_mask`` or
            ``protein_length``.
    """
    if shape == TaskType.PAIR_GEOMETRY:
        return _split_geometry(prediction, batch)
    predicted = prediction.detach().float().cpu().numpy()
    targets = batch["targets"].cpu().numpy()
    sizes = _sizes(shape, batch)
    if sizes is None:
        return [(predicted[i].copy(), targets[i]) for i in range(len(targets))]
    if shape == TaskType.RESIDUE_PAIR:
        return [(predicted[i, :n, :n].copy(), targets[i, :n, :n].copy()) for i, n in enumerate(sizes)]
    return [(predicted[i, :n].copy(), targets[i, :n].copy()) for i, n in enumerate(sizes)]


def _split_geometry(prediction: dict[str, Tensor], batch: Batch) -> list[tuple[Any, Any]]:
    lengths = (batch["msa1hot"][:, 0].sum(-1) > 0).sum(1).tolist()
    arrays = {name: value.detach().float().cpu().numpy() for name, value in prediction.items()}
    labels = {name: batch[name].cpu().numpy() for name in ("dist", "omega", "theta", "phi")}
    return [
        (
            {name: array[i, :n, :n].copy() for name, array in arrays.items()},
            {k: v[i, :n, :n] for k, v in labels.items()},
        )
        for i, n in enumerate(lengths)
    ]


def _sizes(shape: TaskType, batch: Batch) -> list[int] | None:
    """Tokens (or residues, for pairs) of each protein; None where a protein has one label."""
    if shape in (TaskType.VALUE, TaskType.SEQUENCE_CLASS):
        return None
    if shape == TaskType.RESIDUE_PAIR and "protein_length" in batch:
        lengths: list[int] = batch["protein_length"].tolist()
        return lengths
    mask = batch.get("input_mask")
    tokens = torch.ones_like(batch["input_ids"]).sum(1) if mask is None else (mask != 0).sum(1)
    special = 2 if shape == TaskType.RESIDUE_PAIR else 0
    return [int(count) - special for count in tokens.tolist()]


def right_labels(shape: TaskType, prediction: Any, batch: Batch) -> Tensor | None:
    """How many labels of a batch are right, as a scalar on its device; None for shapes without classes of interest."""
    if shape not in _CLASS_SHAPES:
        return None
    targets = batch["targets"]
    return ((prediction.detach().argmax(-1) == targets) & (targets >= 0)).sum()
