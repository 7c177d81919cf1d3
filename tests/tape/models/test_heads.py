"""Heads against direct formulas: weight normalization, masked batch statistics, pair features by factors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tape.datasets.labels import count_correct, count_targets
from tape.errors import ConfigError
from tape.metrics.classes import measure_protein, measure_residues
from tape.metrics.contacts import measure_contacts, summarize_contacts
from tape.models import contact_heads
from tape.models.batch_norm import MaskedBatchNorm
from tape.models.contact_heads import PairwiseContactPredictionHead, pair_projection
from tape.models.heads import (
    MLMHead,
    SequenceClassificationHead,
    SequenceToSequenceClassificationHead,
    SimpleConv,
    ValuePredictionHead,
    WeightNormConv1d,
    WeightNormLinear,
    masked_binary_cross_entropy,
    masked_cross_entropy,
)
from tape.tasks import TaskType


def test_weight_normalization_has_one_gain_for_the_entire_matrix():
    layer = WeightNormLinear(6, 4)
    with torch.no_grad():
        layer.weight_g.fill_(3.0)
    expected = 3.0 * layer.weight_v / layer.weight_v.pow(2).sum().sqrt()
    features = torch.randn(5, 6)
    torch.testing.assert_close(layer(features), features @ expected.T + layer.bias)
    assert layer.weight_g.shape == ()


def test_weight_normalized_convolution_keeps_the_length():
    layer = WeightNormConv1d(3, 7, 5)
    assert layer(torch.randn(2, 3, 11)).shape == (2, 7, 11)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_batch_statistics_leave_padding_out(dimensions):  # bug 17 in docs/compatibility.md
    torch.manual_seed(0)
    masked = MaskedBatchNorm(4)
    plain = nn.BatchNorm1d(4)
    shape = (3, 4) + (8,) * dimensions
    values = torch.randn(shape, requires_grad=True)
    mask = torch.rand(3, *(8,) * dimensions) < 0.6
    output = masked(values, mask)
    expected = plain(values.movedim(1, -1)[mask])
    torch.testing.assert_close(output.movedim(1, -1)[mask], expected)
    assert output.movedim(1, -1)[~mask].abs().max() == 0
    torch.testing.assert_close(masked.running_var, plain.running_var)
    assert masked.num_batches_tracked == 1
    plain.eval(), masked.eval()
    torch.testing.assert_close(masked(values, mask).movedim(1, -1)[mask], plain(values.movedim(1, -1)[mask]))


def test_one_real_position_does_not_break_training():
    head = SimpleConv(4, 8, 3).train()
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[0, 0] = True
    assert torch.isfinite(head(torch.randn(1, 6, 4), mask)).all()


def test_gradient_is_free_of_padding():  # bug 17 in docs/compatibility.md
    torch.manual_seed(1)
    head = SimpleConv(4, 8, 3).train()
    features = torch.randn(2, 9, 4, requires_grad=True)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    head(features, mask)[mask].square().sum().backward()
    assert features.grad[1, 5:].abs().max() == 0


def pair_features(states: torch.Tensor) -> torch.Tensor:
    """(B, L, H) -> (B, L, L, 2H), the tensor that the head never builds."""
    product = states[:, :, None] * states[:, None]
    difference = states[:, :, None] - states[:, None]
    return torch.cat([product, difference], -1)


def test_pair_projection_equals_the_dense_pair_tensor():
    torch.manual_seed(0)
    states = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 10, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64)
    dense = nn.functional.linear(pair_features(states), weight, bias).permute(0, 3, 1, 2)
    factored = pair_projection(states, weight, bias)
    torch.testing.assert_close(factored, dense)
    probe = torch.randn_like(dense)
    for got, expected in zip(
        torch.autograd.grad((factored * probe).sum(), (states, weight)),
        torch.autograd.grad((dense * probe).sum(), (states, weight)),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


class LargestTensor(TorchDispatchMode):
    """Numbers in the largest tensor that any operation makes while it is entered, those of backward passes too."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = (value.numel() for value in tree_leaves(result) if isinstance(value, torch.Tensor))
        self.numbers = max(self.numbers, *made, 0)
        return result


@pytest.mark.parametrize("architecture", ["linear", "resnet"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_no_pair_tensor_is_ever_made(architecture, dropout):  # bug 37 in docs/compatibility.md
    length, hidden = 100, 128  # so that neither 64 channels per pair nor 64 weighted copies of the states are as large
    head = PairwiseContactPredictionHead(hidden, architecture=architecture, num_blocks=1, dropout=dropout).train()
    states = torch.randn(1, length, hidden, requires_grad=True)
    targets = torch.randint(0, 2, (1, length - 2, length - 2))
    with LargestTensor() as largest:
        (loss, _), _ = head(states, None, targets)
        loss.backward()
    assert states.grad is not None
    # Of its two halves, the products and the differences, not one either.
    assert 2 * length * length <= largest.numbers < length * length * hidden


def test_pair_dropout_keeps_the_mean():
    torch.manual_seed(0)
    states, weight = torch.randn(1, 4, 6), torch.randn(3, 12)
    draws = torch.stack([pair_projection(states, weight, torch.zeros(3), dropout=0.5) for _ in range(4000)])
    expected = pair_projection(states, weight, torch.zeros(3))
    assert (draws.mean(0) - expected).abs().max() < 0.35
    assert draws.std(0).mean() > 0.5


@pytest.mark.parametrize("architecture", ["linear", "resnet"])
def test_contact_logits_are_symmetric_and_without_special_tokens(architecture):
    head = PairwiseContactPredictionHead(8, architecture=architecture, num_blocks=2).eval()
    (logits,) = head(torch.randn(2, 12, 8))
    assert logits.shape == (2, 10, 10, 2)
    torch.testing.assert_close(logits, logits.transpose(1, 2))


def contact_batch(residues):
    """States (B, L + 2, 6), targets (B, L, L), the mask, and (B, L, L) True at real pairs."""
    lengths = torch.tensor(residues)
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(max(residues) + 2) < lengths[:, None] + 2
    states = torch.randn(*mask.shape, 6, generator=generator, dtype=torch.float64)
    real = (torch.arange(max(residues)) < lengths[:, None])[:, :, None]
    real = real & real.transpose(1, 2)
    targets = torch.randint(-1, 2, real.shape, generator=generator).masked_fill(~real, -1)
    return states, targets, mask, real


@pytest.mark.parametrize("few_shapes", [False, True])
@pytest.mark.parametrize("separations", [0, 4])
def test_a_linear_contact_head_computes_each_protein_without_padding(separations, few_shapes, monkeypatch):
    """Loss, P@L/5, logits of real pairs and gradients are those of the padded batch."""
    monkeypatch.setattr(contact_heads, "_PAIRS_PER_PART", 0)
    monkeypatch.setattr(contact_heads, "needs_few_shapes", lambda values: few_shapes)
    states, targets, mask, real = contact_batch([9, 40, 1, 33])
    results, sizes = [], []
    for lengths in (contact_heads.lengths_of, lambda mask: None):
        monkeypatch.setattr(contact_heads, "lengths_of", lengths)
        torch.manual_seed(0)
        head = PairwiseContactPredictionHead(6, architecture="linear", dropout=0.0, separations=separations).double()
        head.predict["1"].register_forward_hook(lambda _, given, result: sizes.append(given[0].shape[1]))
        inputs = states.clone().requires_grad_()
        (loss, metrics), logits = head(inputs, None, targets, mask)
        (loss + (logits[real] ** 2).mean()).backward()
        gradients = [inputs.grad, *(parameter.grad for parameter in head.parameters())]
        results.append((loss, metrics["precision_at_l5"], logits[real], *gradients))
        assert logits.is_contiguous()
        torch.testing.assert_close(head.loss(logits, targets), loss)
        torch.testing.assert_close(head.loss(logits, targets.unsqueeze(-1)), loss)
        torch.testing.assert_close(head.compute_precision_at_l5(mask.sum(1) - 2, logits, targets), results[-1][1])
        torch.testing.assert_close(logits, logits.transpose(1, 2))
    assert sizes == [*([16, 40, 16, 40] if few_shapes else [9, 40, 1, 33]), 40]  # and the padded batch
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("residues", "parts"),
    [
        ([300, 20, 20], 3),
        ([300, 300], 1),  # nothing is saved
        ([30, 20, 5], 1),  # less is saved than three parts cost
        ([300, 20, 0], 1),  # a protein without residues
    ],
)
def test_proteins_are_computed_alone_where_that_saves_time(residues, parts):
    states, targets, mask, _ = contact_batch(residues)
    head = PairwiseContactPredictionHead(6, architecture="linear", dropout=0.0).double()
    assert len(head._parts(states, mask)) == parts
    (loss, _), _ = head(states, None, targets, mask)
    assert loss.isfinite()
    with forward_ad.dual_level():
        assert len(head._parts(states, mask)) == 1


def test_one_protein_with_padding_has_logits_for_all_slots(monkeypatch):
    monkeypatch.setattr(contact_heads, "_PAIRS_PER_PART", 0)
    states, targets, mask, real = (whole[:1] for whole in contact_batch([9, 40]))
    head = PairwiseContactPredictionHead(6, architecture="linear", dropout=0.0).double()
    (loss, _), logits = head(states, None, targets, mask)
    assert logits.shape == (1, 40, 40, 2)
    (alone, _), expected = head(states[:, :11], None, targets[:, :9, :9], mask[:, :11])
    torch.testing.assert_close((loss, logits[real]), (alone, expected.flatten(0, 2)))


def test_a_contact_batch_without_proteins():
    head = PairwiseContactPredictionHead(6, architecture="linear")
    (loss, _), logits = head(torch.zeros(0, 9, 6), None, torch.zeros(0, 7, 7).long(), torch.zeros(0, 9))
    assert (loss, logits.shape) == (0, (0, 7, 7, 2))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_of_ignored_pairs_never_count(bad):
    head = PairwiseContactPredictionHead(4, architecture="linear")
    targets = torch.tensor([[[1, -1], [0, -100]]])
    logits = torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = head.loss(logits, targets)
    logits[targets < 0] = bad
    logits.requires_grad_()
    loss = head.loss(logits, targets)
    loss.backward()
    assert loss == expected
    assert not logits.grad[targets < 0].any()
    sure = torch.tensor([[[[-math.inf, 0.0]]]])
    assert head.loss(sure, torch.tensor([[[1]]])) == 0


def test_loss_of_contacts_is_the_cross_entropy_of_both_classes():
    logits = 3 * torch.randn(2, 7, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.randint(-1, 2, (2, 7, 7), generator=torch.Generator().manual_seed(1))
    head = PairwiseContactPredictionHead(4, architecture="linear")
    torch.testing.assert_close(head.loss(logits, targets), masked_cross_entropy(logits, targets).float())
    assert head.loss(logits, torch.full_like(targets, -1)) == 0


@pytest.mark.parametrize("architecture", ["linear", "resnet"])
def test_distances_along_the_chain_have_logits_of_their_own(architecture):
    torch.manual_seed(0)
    plain = PairwiseContactPredictionHead(8, architecture=architecture, num_blocks=1).eval()
    head = PairwiseContactPredictionHead(8, architecture=architecture, num_blocks=1, separations=5).eval()
    assert head.load_state_dict(plain.state_dict(), strict=False).missing_keys == ["separation.weight"]
    states = torch.randn(2, 12, 8)
    assert torch.equal(head(states)[0], plain(states)[0])  # they begin at 0
    with torch.no_grad():
        head.separation.weight.copy_(torch.arange(10.0).view(5, 2))
    added = (head(states)[0] - plain(states)[0])[1]
    for first, second in ((0, 0), (3, 1), (0, 3), (2, 6), (0, 9)):
        distance = min(abs(first - second), 4)
        torch.testing.assert_close(added[first, second], torch.tensor([2.0 * distance, 2.0 * distance + 1]))


def test_distances_along_the_chain_are_learned():
    torch.manual_seed(0)
    head = PairwiseContactPredictionHead(8, architecture="linear", dropout=0.0, separations=20)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    place = torch.arange(18)
    targets = ((place[:, None] - place).abs() == 7).long()[None]
    for _ in range(60):
        optimizer.zero_grad()
        (loss, _), logits = head(torch.zeros(1, 20, 8), None, targets)
        loss.backward()
        optimizer.step()
    assert torch.equal(logits.argmax(-1), targets)


def test_contact_tower_equals_a_plain_evaluation():
    torch.manual_seed(0)
    head = PairwiseContactPredictionHead(6, num_blocks=2).eval()
    states = torch.randn(1, 9, 6)
    pairs = head.predict["1"](states)
    dense = nn.functional.conv2d(
        pair_features(states).permute(0, 3, 1, 2), head.predict["1"].weight, head.predict["1"].bias
    )
    torch.testing.assert_close(pairs, dense, rtol=1e-4, atol=1e-5)
    hidden = dense
    for index in range(2):
        block = head.predict[f"ResidualBlock{index}"]
        hidden = torch.relu(hidden + block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(hidden))))))
    logits = head.linear(hidden.permute(0, 2, 3, 1))
    expected = ((logits + logits.transpose(1, 2)) / 2)[:, 1:-1, 1:-1]
    torch.testing.assert_close(head(states)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_recomputed_blocks_change_no_number(blocks, padded):
    heads = []
    for recompute in (False, True):
        torch.manual_seed(0)
        heads.append(PairwiseContactPredictionHead(4, num_blocks=blocks, dropout=0.0, checkpoint_blocks=recompute))
    states = torch.randn(2, 9, 4)
    mask = torch.arange(9) < torch.tensor([[9], [6 if padded else 9]])
    targets = torch.randint(0, 2, (2, 7, 7)) - (torch.rand(2, 7, 7) < 0.2).long()
    results = []
    for head in heads:
        inputs = states.clone().requires_grad_()
        for _ in range(2):  # twice: the running statistics of the first pass enter nothing
            (loss, _), _ = head(inputs, None, targets, mask)
            loss.backward()
        results.append((loss, inputs.grad, [p.grad for p in head.parameters()], dict(head.named_buffers())))
    (loss, grad, grads, plain), (again, same, others, recomputed) = results
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(same, grad)
    for one, other in zip(grads, others, strict=True):
        torch.testing.assert_close(one, other)
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value)
    assert int(plain["predict.ResidualBlock0.bn1.num_batches_tracked"]) == 2


def test_loss_over_no_target_is_zero_not_nan():
    assert masked_cross_entropy(torch.randn(2, 3, 5), torch.full((2, 3), -1)) == 0


def test_proteins_without_a_class_have_no_part_in_the_loss():
    torch.manual_seed(0)
    head = SequenceClassificationHead(4, 3, head_hidden_size=8).eval()
    states = torch.randn(3, 4)
    (loss, metrics), logits = head(states, torch.tensor([1, -1, int(head(states)[0][2].argmax())]))
    (labeled, _), _ = head(states[[0, 2]], torch.tensor([1, int(logits[2].argmax())]))
    torch.testing.assert_close(loss, labeled)
    assert float(metrics["accuracy"]) == pytest.approx((float(logits[0].argmax() == 1) + 1) / 2)
    assert head(states, torch.full((3,), -1))[0][0].item() == 0.0  # not nan


def test_value_head_loss_is_mean_squared_error():
    head = ValuePredictionHead(8)
    pooled, targets = torch.randn(4, 8), torch.randn(4, 1)
    (loss, metrics), prediction = head(pooled, targets)
    torch.testing.assert_close(loss, (prediction - targets).square().mean())
    assert metrics == {}


@pytest.mark.parametrize("padding", [-1, -100])
@pytest.mark.parametrize("options", [{}, {"ignore_index": -1}])
@pytest.mark.parametrize("kind", [SequenceToSequenceClassificationHead, MLMHead])
def test_a_third_partys_padding_of_labels_never_counts(kind: Any, options: dict[str, int], padding: int) -> None:
    """tape-proteins 0.5's heads ignore -100 by default, and -1 in its models; the counts of training agree."""
    torch.manual_seed(0)
    head = kind(8, 3, **options).eval()
    targets = torch.tensor([[padding, 1, 2, padding, padding]])
    (loss, metrics), logits = head(torch.randn(1, 5, 8), targets)
    expected = nn.functional.cross_entropy(logits[0, 1:3], targets[0, 1:3])
    torch.testing.assert_close(loss, expected)
    correct = int((logits[0, 1:3].argmax(-1) == targets[0, 1:3]).sum())
    assert count_targets(targets) == 2
    assert count_correct(TaskType.RESIDUE_CLASS, logits, {"targets": targets}) == correct
    if "accuracy" in metrics:
        assert metrics["accuracy"] == correct / 2
    found = measure_residues(logits[0].detach().numpy(), targets[0].numpy())
    assert found[:2] == (correct, 2)


@pytest.mark.parametrize("padding", [-1, -100])
def test_a_third_partys_padding_of_pairs_and_proteins_never_counts(padding: int) -> None:
    torch.manual_seed(0)
    targets = torch.randint(0, 2, (1, 9, 9))
    targets[0, :, 5:] = padding
    (loss, _), logits = PairwiseContactPredictionHead(8, architecture="linear").eval()(
        torch.randn(1, 11, 8), targets=targets
    )
    expected = nn.functional.cross_entropy(logits[0, :, :5].flatten(0, 1), targets[0, :, :5].flatten())
    torch.testing.assert_close(loss, expected)
    assert count_targets(targets) == 45
    assert measure_contacts(logits[0].detach().numpy(), targets[0].numpy()).original.chosen == 0  # no pair 6 apart left
    (loss, metrics), logits = SequenceClassificationHead(8, 4, 16)(torch.randn(2, 8), torch.tensor([3, padding]))
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits[:1], torch.tensor([3])))
    assert metrics["accuracy"] == float(logits[0].argmax() == 3)
    assert measure_protein(logits[1].detach().numpy(), np.int64(padding)).equal == 0


def test_the_contact_head_gives_the_precision_of_the_batch() -> None:
    """Lengths come from TAPE's argument, or the mask; a protein too short for a pair at separation 6 is left out."""
    torch.manual_seed(0)
    head = PairwiseContactPredictionHead(8, architecture="linear").eval()
    lengths = torch.tensor([40, 6, 23])
    mask = torch.arange(42) < lengths[:, None] + 2
    targets = torch.randint(-1, 2, (3, 40, 40))
    for target, length in zip(targets, lengths.tolist(), strict=True):
        target[length:] = target[:, length:] = -1
    states = torch.randn(3, 42, 8)
    (_, metrics), logits = head(states, lengths, targets)
    rows = [
        measure_contacts(logits[row, :length, :length].detach().numpy(), targets[row, :length, :length].numpy())
        for row, length in enumerate(lengths.tolist())
    ]
    expected = {metric.name: metric.value for metric in summarize_contacts(rows)}["precision_at_l5"]
    assert 0 < expected < 1
    assert float(metrics["precision_at_l5"]) == pytest.approx(expected)
    assert float(head.compute_precision_at_l5(lengths, logits, targets)) == pytest.approx(expected)
    (_, masked), _ = head(states, targets=targets, input_mask=mask.long())
    assert float(masked["precision_at_l5"]) == pytest.approx(expected)


def test_the_language_model_head_gives_the_perplexity_of_the_batch() -> None:
    (loss, metrics), _ = MLMHead(8, 30)(torch.randn(2, 5, 8), torch.randint(0, 30, (2, 5)))
    assert float(metrics["perplexity"]) == pytest.approx(float(loss.detach().exp()))
    assert not metrics["perplexity"].requires_grad


def test_residue_logits_can_be_viewed_as_rows() -> None:
    head = SequenceToSequenceClassificationHead(8, 3)
    _, logits = head(torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.long))
    assert logits.view(-1, head.num_labels).shape == (10, 3)


def test_a_class_that_a_head_is_configured_to_ignore() -> None:
    logits, targets = torch.randn(1, 4, 3), torch.tensor([[0, 1, 2, -1]])
    expected = nn.functional.cross_entropy(logits[0, 1:3], targets[0, 1:3])
    torch.testing.assert_close(masked_cross_entropy(logits, targets, ignore_index=0), expected)


def test_a_standardized_value_head_learns_z_scores_and_returns_values() -> None:
    torch.manual_seed(0)
    plain, scaled = ValuePredictionHead(8), ValuePredictionHead(8, mean=57.0, std=6.0)
    scaled.load_state_dict(plain.state_dict())
    features, targets = torch.randn(3, 8), torch.tensor([[51.0], [57.0], [66.0]])
    torch.testing.assert_close(scaled(features)[0], plain(features)[0] * 6 + 57)
    (loss, _), prediction = scaled(features, targets)
    torch.testing.assert_close(loss, plain(features, (targets - 57) / 6)[0][0])
    torch.testing.assert_close(prediction, scaled(features)[0])


def test_several_values_are_learned_in_the_scale_of_each_without_those_that_are_missing() -> None:
    torch.manual_seed(0)
    head = ValuePredictionHead(8, mean=(57.0, 0.5), std=(6.0, 0.25))
    features, nan = torch.randn(3, 8), math.nan
    targets = torch.tensor([[51.0, nan], [nan, 0.75], [66.0, 0.25]])
    (loss, _), prediction = head(features, targets)
    assert prediction.shape == (3, 2)
    errors = (prediction - targets) / torch.tensor([6.0, 0.25])
    torch.testing.assert_close(loss, errors[~targets.isnan()].square().mean())
    torch.testing.assert_close(head.loss(prediction, targets), loss)
    loss.backward()
    gradient = head.value_prediction.main[-1].bias.grad
    torch.testing.assert_close(gradient, 2 * errors.nansum(0).detach() / 4)
    with pytest.raises(ConfigError, match=r"shape \(3, 1\), but the predictions are for \(3, 2\)"):
        head(features, targets[:, :1])


def test_class_weights_multiply_the_loss_of_each_label_as_in_pytorch() -> None:
    logits, targets, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, -1, 1]), torch.tensor([0.5, 2.0, 3.0])
    own = masked_cross_entropy(logits, targets, class_weights=weights)
    known = targets >= 0
    expected = F.cross_entropy(logits[known], targets[known], weights, reduction="sum") / known.sum()
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize(
    ("kind", "shape"), [(SequenceClassificationHead, (4,)), (SequenceToSequenceClassificationHead, (4, 5))]
)
def test_class_weights_change_the_loss_of_a_head_alone(kind: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    features, targets = torch.randn(*shape, 8), torch.randint(0, 3, shape)
    plain, weighted = kind(8, 3), kind(8, 3, class_weights=[2.0, 2.0, 2.0])
    weighted.load_state_dict(plain.state_dict())
    (loss, metrics), logits = plain(features, targets)
    (twice, same), others = weighted(features, targets)
    torch.testing.assert_close(twice, 2 * loss)
    assert torch.equal(logits, others)
    assert metrics["accuracy"] == same["accuracy"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "class_weights has 2 weights for 3 classes"),
        ([1.0, 0.0, 1.0], "must be a list of positive numbers, not"),
        ("abc", "must be a list of positive numbers, not 'abc'"),
    ],
)
def test_class_weights_are_checked(weights: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SequenceClassificationHead(8, 3, class_weights=weights)


def test_the_loss_of_labels_is_the_mean_over_known_ones() -> None:
    logits, targets = torch.randn(3, 4), torch.tensor([[1, 0, -1, 1], [0, 0, 0, 1], [-1, -1, -1, -1]])
    known = targets >= 0
    expected = F.binary_cross_entropy_with_logits(logits[known], targets[known].float())
    torch.testing.assert_close(masked_binary_cross_entropy(logits, targets), expected)
    assert masked_binary_cross_entropy(logits[2:], targets[2:]) == 0
