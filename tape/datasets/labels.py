"""Labels of a collated batch: how many it has, which task type they belong to, and those of each single protein."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tape.errors import ConfigError
from tape.registry import TaskSpec
from tape.tasks import TaskType

_CLASS_TASK_TYPES = (TaskType.SEQUENCE_CLASS, TaskType.RESIDUE_CLASS, TaskType.MASKED_LM, TaskType.LANGUAGE_MODEL)
# Keys of a batch that are not inputs of a model.
_NOT_INPUTS = ("ids",)

Batch = dict[str, Any]


def model_inputs(batch: Batch, device: torch.device) -> Batch:
    """Keyword arguments of the model's ``forward``, on ``device``."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name not in _NOT_INPUTS
    }


def count_targets(targets: Tensor) -> int:
    """Number of labels that the mean loss is over: class labels from 0 on, proteins if the targets are one value each,
    or the values that are not missing (``nan``) if there are several."""
    if targets.is_floating_point():
        return int(targets.shape[0]) if targets.numel() == targets.shape[0] else int((~targets.isnan()).sum())
    return int((targets >= 0).sum())


def count_labels(task_type: TaskType, batch: Batch) -> int:
    """Number of items that the mean loss of a batch is over: :func:`count_targets`, or proteins for pair geometry."""
    if task_type == TaskType.PAIR_GEOMETRY:
        return int(batch["msa1hot"].shape[0])
    return count_targets(batch["targets"])


def placeholder_loss(prediction: Tensor | dict[str, Tensor]) -> Tensor:
    """Loss of a micro-batch without labels: a finite scalar that depends on the entire prediction, since every rank has
    to run a backward pass through all of the model."""
    parts = prediction.values() if isinstance(prediction, dict) else [prediction]
    return torch.stack([torch.nan_to_num(part.float()).sum() for part in parts]).sum()


def infer_task_type(batch: Batch) -> TaskType:
    """Infer the task type of a third-party task from the data type and shape of ``targets``.

    Raises:
        ConfigError: the targets match no task type.
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
        f"targets of type {targets.dtype} and shape {tuple(targets.shape)} match no task type;"
        " state it with registry.register_task(..., task_type=...)"
    )


def task_type_of(spec: TaskSpec, dataset: Any) -> TaskType:
    """The registered task type, or the one that the first example's targets belong to."""
    return spec.task_type or infer_task_type(dataset.collate_fn([dataset[0]]))


def split_proteins(task_type: TaskType, prediction: Any, batch: Batch) -> list[tuple[Any, Any]]:
    """(prediction, target) of each protein of a batch, without padding, as numpy arrays (dictionaries of them for pair
    geometry).

    Args:
        task_type: type of the task.
        prediction: output of the model, batch first.
        batch: the collated batch, with ``targets`` and, depending on the task type, ``input_mask`` or
            ``protein_length``.
    """
    if task_type == TaskType.PAIR_GEOMETRY:
        return _split_geometry(prediction, batch)
    predicted = prediction.detach().float().cpu().numpy()
    targets = batch["targets"].cpu().numpy()
    sizes = _sizes(task_type, batch)
    if sizes is None:
        return [(predicted[i].copy(), targets[i]) for i in range(len(targets))]
    if task_type == TaskType.RESIDUE_PAIR:
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


def _sizes(task_type: TaskType, batch: Batch) -> list[int] | None:
    """Number of tokens (of residues, for pairs) of each protein; None if a protein has one label."""
    if task_type in (TaskType.VALUE, TaskType.SEQUENCE_CLASS, TaskType.MULTILABEL):
        return None
    if task_type == TaskType.RESIDUE_PAIR and "protein_length" in batch:
        lengths: list[int] = batch["protein_length"].tolist()
        return lengths
    mask = batch.get("input_mask")
    tokens = torch.ones_like(batch["input_ids"]).sum(1) if mask is None else (mask != 0).sum(1)
    special = 2 if task_type == TaskType.RESIDUE_PAIR else 0
    return [int(count) - special for count in tokens.tolist()]


def count_correct(task_type: TaskType, prediction: Any, batch: Batch) -> Tensor | None:
    """Number of correctly predicted labels, as a scalar tensor; None for task types without a training accuracy."""
    if task_type not in _CLASS_TASK_TYPES:
        return None
    targets = batch["targets"]
    return ((prediction.detach().argmax(-1) == targets) & (targets >= 0)).sum()
