"""Layers of TAPE, in a model of others, against PyTorch's and formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tape.errors import ConfigError
from tape.models.modeling_utils import (
    WEIGHTS_NAME,
    Accuracy,
    LayerNorm,
    PredictionHeadTransform,
    SimpleConv,
    SimpleMLP,
    accuracy,
    gelu,
    get_activation_fn,
    prune_linear_layer,
    swish,
)


def test_layer_norm_has_the_epsilon_of_bert() -> None:
    norm = LayerNorm(8)
    states = torch.randn(3, 8) * 1e-4
    centered = states - states.mean(-1, keepdim=True)
    expected = centered / (centered.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    torch.testing.assert_close(norm(states), expected)
    assert sorted(norm.state_dict()) == ["bias", "weight"]


def test_activations_by_name() -> None:
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(gelu(x), x * (1 + torch.erf(x / 2**0.5)) / 2)
    torch.testing.assert_close(swish(x), x / (1 + (-x).exp()))
    assert [get_activation_fn(name)(x).tolist() for name in ("gelu", "swish", "relu")] == [
        gelu(x).tolist(),
        swish(x).tolist(),
        x.clamp(min=0).tolist(),
    ]
    with pytest.raises(ConfigError, match="unknown activation function 'tanh'; choose one of gelu, relu, swish"):
        get_activation_fn("tanh")


def test_accuracy_leaves_ignored_labels_out() -> None:
    logits = torch.eye(3)[torch.tensor([[0, 1, 2, 2]])]
    labels = torch.tensor([[0, 1, 1, -1]])
    assert float(accuracy(logits, labels, ignore_index=-1)) == pytest.approx(2 / 3)
    assert float(Accuracy(ignore_index=-1)(logits, labels)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("bias", [True, False])
def test_a_pruned_layer_computes_the_kept_values(bias: bool) -> None:
    layer, index = nn.Linear(4, 6, bias), torch.tensor([5, 0, 2])
    outputs = prune_linear_layer(layer, index)
    states = torch.randn(2, 4)
    torch.testing.assert_close(outputs(states), layer(states)[:, index])
    inputs = prune_linear_layer(layer, torch.tensor([1, 3]), dim=1)
    states[:, [0, 2]] = 0
    torch.testing.assert_close(inputs(states[:, [1, 3]]), layer(states))
    assert outputs.weight.requires_grad


def test_heads_of_others_are_built_from_the_parts() -> None:
    """As in public models: an MLP on the pooled output, a convolution on the states, and a transform."""
    pooled, states = torch.randn(2, 8), torch.randn(2, 5, 8)
    assert SimpleMLP(8, 16, 3, dropout=0.1)(pooled).shape == (2, 3)
    assert SimpleConv(8, 16, 3)(states).view(-1, 3).shape == (10, 3)
    assert PredictionHeadTransform(8, "gelu", 1e-12)(states).shape == (2, 5, 8)
    assert WEIGHTS_NAME == "pytorch_model.bin"
