"""Predictions of all models do not depend on the rest of the batch (bug 17 in docs/compatibility.md)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tape.registry import registry
from tape.tasks import BUILT_IN_TASKS, TaskType
from tests.support.small_models import SMALL_CONFIGS

LENGTHS = (12, 30, 3, 21)


def small_model(model_type: str, task: str, **changes: Any) -> torch.nn.Module:
    """A model, on 30 tokens, with weights and running statistics that all matter, in evaluation mode."""
    model_class = registry.get_task_spec(task).get_model(model_type)
    values = {
        **SMALL_CONFIGS[model_type],
        "num_labels": registry.get_task_spec(task).num_labels,
        "vocab_size": 30,
        **changes,
    }
    torch.manual_seed(0)
    model: torch.nn.Module = model_class(model_class.config_class(**values)).eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("running_mean", "running_var")) or value.dim() < 2:
                value.copy_(torch.rand_like(value) + 0.5 if value.is_floating_point() else value)
            elif value.is_floating_point() and "inverse_frequency" not in name:
                value.mul_(3.0)
    return model


def cases() -> list[Any]:
    pairs = [(task, model) for task in BUILT_IN_TASKS for model in task.models if model != "trrosetta"]
    found = [pytest.param(model, task, {}, id=f"{model}-{task.name}") for task, model in pairs]
    for task, model in pairs:
        if task.task_type == TaskType.RESIDUE_PAIR:
            found.append(pytest.param(model, task, {"contact_head": "linear"}, id=f"{model}-{task.name}-linear"))
        if task.task_type == TaskType.VALUE and task.name == "stability":
            found += [
                pytest.param(model, task, {"pooling": pooling}, id=f"{model}-{task.name}-{pooling}")
                for pooling in ("mean", "attention")
            ]
            normalized = {"pooling": "mean", "pooled_norm": "batch"}
            found.append(pytest.param(model, task, normalized, id=f"{model}-{task.name}-normalized"))
    return found


def predictions(model: torch.nn.Module, task: Any, order: list[int], ids: torch.Tensor) -> dict[int, list[Any]]:
    """What the model gives each protein of one batch, padding cut off."""
    longest = max(LENGTHS[row] for row in order)
    mask = torch.arange(longest) < torch.tensor([LENGTHS[row] for row in order])[:, None]
    with torch.no_grad():
        outputs = model(ids[order, :longest] * mask, mask.long())
    outputs = outputs[:2] if task.task_type == TaskType.EMBEDDING else outputs[:1]
    return {row: [cut(output[i], LENGTHS[row]) for output in outputs] for i, row in enumerate(order)}


def cut(output: torch.Tensor, length: int) -> torch.Tensor:
    if output.dim() == 3:
        return output[: length - 2, : length - 2]
    return output[:length] if output.dim() == 2 else output


@pytest.mark.parametrize(("model_type", "task", "changes"), cases())
def test_a_prediction_is_the_same_alone_batched_sorted_and_shuffled(
    proteins, model_type, task, changes
):  # bug 17 in docs/compatibility.md
    model = small_model(model_type, task.name, **changes)
    ids, _ = proteins(*LENGTHS)
    alone = {row: predictions(model, task, [row], ids)[row] for row in range(len(LENGTHS))}
    by_length = sorted(range(len(LENGTHS)), key=LENGTHS.__getitem__)
    for order in (list(range(len(LENGTHS))), by_length, by_length[::-1], [3, 0, 2, 1]):
        for row, outputs in predictions(model, task, order, ids).items():
            for output, expected in zip(outputs, alone[row], strict=True):
                scale = max(1.0, float(expected.abs().max()))
                assert (output - expected).abs().max() < 1e-5 * scale
    sums = [float(outputs[0].double().sum()) for outputs in alone.values()]
    assert len(set(sums)) == len(LENGTHS)  # else the comparison would show nothing
