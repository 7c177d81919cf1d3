"""``--length window``: proteins longer than the position table, in overlapping windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.configs import ProteinBertConfig
from tape.evaluation.windows import WindowedModel, window_starts
from tape.registry import registry
from tape.tasks import TaskType

SIZE = 6  # residues per window
POSITIONS = SIZE + 2


class PositionModel(nn.Module):
    """A model with simple outputs that depend on the tokens and their position in the window."""

    def __init__(self, task_type: TaskType) -> None:
        super().__init__()
        self.task_type = task_type
        self.config = None

    def forward(
        self,
        input_ids: Tensor,
        input_mask: Tensor | None = None,
        targets: Tensor | None = None,
        protein_length: Tensor | None = None,
    ) -> tuple[Any, ...]:
        assert input_ids.shape[1] <= POSITIONS
        mask = torch.ones_like(input_ids) if input_mask is None else input_mask
        values = (input_ids * mask).float()
        place = torch.arange(input_ids.shape[1]).float().expand_as(values)
        if self.task_type == TaskType.EMBEDDING:
            return torch.stack([values, place], -1), values.sum(1, keepdim=True)
        if self.task_type == TaskType.VALUE:
            prediction = values.sum(1, keepdim=True)
        elif self.task_type == TaskType.MULTILABEL:
            prediction = torch.stack([values.sum(1) / 50, -values.sum(1) / 90], -1)
        elif self.task_type == TaskType.SEQUENCE_CLASS:
            prediction = torch.stack([values.sum(1) / 50, torch.zeros(len(values))], -1)
        elif self.task_type == TaskType.RESIDUE_CLASS:
            prediction = torch.stack([values / 10, place / 10], -1)
        else:
            inner = values[:, 1:-1] / 10
            prediction = torch.stack([torch.zeros_like(inner[:, :, None] + inner[:, None]), _outer(inner)], -1)
        if targets is None:
            return (prediction,)
        return (torch.tensor(-1.0), {}), prediction


def _outer(values: Tensor) -> Tensor:
    return values[:, :, None] * values[:, None, :]


def batch(*lengths: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of proteins with residues 5, 6, 7, ... between <cls> (2) and <sep> (3)."""
    ids = torch.zeros(len(lengths), max(lengths) + 2, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, : length + 2] = torch.tensor([2, *range(5, 5 + length), 3])
    return ids, (ids != 0).long()


def windowed(task_type: TaskType) -> WindowedModel:
    return WindowedModel(PositionModel(task_type), task_type, POSITIONS)


@pytest.mark.parametrize("length", [1, 5, 6, 7, 9, 10, 31, 100])
def test_windows_cover_a_protein_and_overlap(length: int) -> None:
    starts = window_starts(length, SIZE)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - SIZE)
    assert all(0 < step <= SIZE // 2 for step in np.diff(starts))
    covered = {start + place for start in starts for place in range(min(length, SIZE))}
    assert covered == set(range(length))


@pytest.mark.parametrize("task_type", [TaskType.VALUE, TaskType.RESIDUE_CLASS, TaskType.RESIDUE_PAIR])
def test_a_short_protein_is_unchanged_alone_and_in_a_batch_with_a_long_one(task_type: TaskType) -> None:
    model = windowed(task_type)
    ids, mask = batch(4)
    plain = model.model(ids, mask)[0]
    assert torch.equal(model(ids, mask)[0], plain)
    both = model(*batch(4, 9))[0][0]
    own = both[:4, :4] if task_type == TaskType.RESIDUE_PAIR else both[: plain.shape[1]]
    assert torch.equal(own, plain[0])


def test_values_and_classes_are_means_over_windows() -> None:
    ids, mask = batch(9)  # windows of residues 0-5 and 3-8
    first, second = sum(range(5, 11)) + 5, sum(range(8, 14)) + 5
    assert windowed(TaskType.VALUE)(ids, mask)[0].item() == (first + second) / 2
    found = windowed(TaskType.SEQUENCE_CLASS)(ids, mask)[0].softmax(-1)[0, 0].item()
    expected = torch.sigmoid(torch.tensor([first / 50, second / 50])).mean().item()
    assert found == pytest.approx(expected)


def test_probabilities_of_labels_are_means_over_windows() -> None:
    ids, mask = batch(9)
    sums = torch.tensor([sum(range(5, 11)) + 5.0, sum(range(8, 14)) + 5.0])
    expected = torch.stack([torch.sigmoid(sums / 50).mean(), torch.sigmoid(-sums / 90).mean()])
    targets = torch.tensor([[1, 0]])
    (loss, _), logits = windowed(TaskType.MULTILABEL)(ids, mask, targets)
    torch.testing.assert_close(logits[0].sigmoid(), expected)
    torch.testing.assert_close(loss, F.binary_cross_entropy(expected, targets[0].float()))


def test_residue_probabilities_are_means_over_windows() -> None:
    ids, mask = batch(9)
    found = windowed(TaskType.RESIDUE_CLASS)(ids, mask)[0].softmax(-1)[0, :, 0]
    assert found.shape == (11,)

    def probability(token: int, place: int) -> float:
        return torch.sigmoid(torch.tensor(token / 10 - place / 10)).item()

    assert found[1].item() == pytest.approx(probability(5, 1))  # only in the first window
    assert found[9].item() == pytest.approx(probability(13, 6))  # only in the second window
    assert found[4].item() == pytest.approx((probability(8, 4) + probability(8, 1)) / 2)
    assert found[0].item() == pytest.approx(probability(2, 0))
    assert found[10].item() == pytest.approx(probability(3, 7))


def test_pairs_outside_all_windows_rank_last() -> None:
    ids, mask = batch(9)
    found = windowed(TaskType.RESIDUE_PAIR)(ids, mask)[0].softmax(-1)[0, :, :, 1]
    assert found.shape == (9, 9)

    def probability(i: int, j: int) -> float:
        return torch.sigmoid(torch.tensor((5 + i) * (5 + j) / 100)).item()

    covered = [(i, j) for i in range(9) for j in range(9) if {i, j} <= set(range(6)) or {i, j} <= set(range(3, 9))]
    for i, j in covered:
        assert found[i, j].item() == pytest.approx(probability(i, j), rel=1e-5)
    lowest = min(probability(i, j) for i, j in covered)
    for i in range(9):
        for j in range(9):
            if (i, j) not in covered:
                assert found[i, j].item() == pytest.approx(lowest, rel=1e-5)


def test_embeddings_are_means_over_windows() -> None:
    states, pooled = windowed(TaskType.EMBEDDING)(*batch(9, 3))
    assert states.shape == (2, 11, 2)
    assert states[0, 1:10, 0].tolist() == list(range(5, 14))
    assert states[0, 4, 1].item() == (4 + 1) / 2
    assert states[1, :5, 0].tolist() == [2, 5, 6, 7, 3]
    assert pooled[:, 0].tolist() == [(50 + 68) / 2, 23]


def test_the_loss_is_computed_from_the_averaged_prediction() -> None:
    ids, mask = batch(9, 4)
    model = windowed(TaskType.RESIDUE_CLASS)
    targets = torch.full_like(ids, -1)
    targets[0, 1:10], targets[1, 1:5] = 1, 0
    (loss, _), prediction = model(ids, mask, targets)
    expected = F.cross_entropy(prediction.flatten(0, 1), targets.flatten(), ignore_index=-1)
    assert loss.item() == pytest.approx(expected.item())
    values = torch.tensor([[1.0], [2.0]])
    (loss, _), prediction = windowed(TaskType.VALUE)(ids, mask, values)
    assert loss.item() == pytest.approx(((prediction - values) ** 2).mean().item())


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


RESIDUE_CLASSES = torch.tensor([[-1, *[0, 1, 2] * 3, -1]] * 2)


def windowed_pair(task: str, **overrides: Any) -> tuple[nn.Module, WindowedModel]:
    """A model with a position table for nine residues, and one with the same weights whose windows have six."""
    torch.manual_seed(0)
    config = ProteinBertConfig(**SMALL, max_position_embeddings=11, **overrides)
    model = registry.get_task_model("transformer", task, **vars(config)).eval()
    task_type = registry.get_task_spec(task).task_type
    return model, WindowedModel(model, task_type, POSITIONS)


@pytest.mark.parametrize(
    ("task", "overrides", "targets"),
    [
        (
            "stability",
            {"target": {"task": "my_Tm", "type": "regression", "column": "Tm", "mean": 50.0, "std": 7.0}},
            torch.tensor([[52.0], [31.0]]),
        ),
        ("remote_homology", {"num_labels": 3, "class_weights": [0.5, 1.0, 9.0]}, torch.tensor([2, 0])),
        (
            "secondary_structure",
            {"num_labels": 3, "class_weights": [0.1, 3.0, 5.0]},
            RESIDUE_CLASSES,
        ),
    ],
)
def test_the_loss_of_windows_is_that_of_the_model(task: str, overrides: dict[str, Any], targets: Tensor) -> None:
    model, windows = windowed_pair(task, **overrides)
    ids, mask = batch(9, 9)
    with torch.no_grad():
        (loss, _), prediction = windows(ids, mask, targets)[:2]
        (whole, _), expected = model(ids, mask, targets)[:2]
    assert not torch.allclose(prediction, expected)  # windows were used
    if task == "stability":
        by_hand = (((prediction - targets) / 7) ** 2).mean()
    else:
        labels = targets.flatten()
        log_probability = prediction.log_softmax(-1).flatten(0, -2)[labels >= 0, labels[labels >= 0]]
        weight = torch.tensor(overrides["class_weights"])[labels[labels >= 0]]
        by_hand = -(weight * log_probability).sum() / (labels >= 0).sum()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert model.loss(expected, targets).item() == pytest.approx(whole.item(), rel=1e-5)
