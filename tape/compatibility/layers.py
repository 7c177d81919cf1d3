"""Functions and layers of TAPE's ``tape.models.modeling_utils``, over those of PyTorch and this library."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.errors import ConfigError, quoted
from tape.models.heads import IGNORED
from tape.models.model_directory import BIN_NAME

WEIGHTS_NAME = BIN_NAME


class LayerNorm(nn.LayerNorm):
    """PyTorch's layer norm over the last dimension, with BERT's epsilon as default."""

    def __init__(self, hidden_size: int, eps: float = 1e-12) -> None:
        super().__init__(hidden_size, eps=eps)


def gelu(x: Tensor) -> Tensor:
    """GELU in the erf form."""
    return F.gelu(x)


def swish(x: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return F.silu(x)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": F.relu, "swish": swish}


def get_activation_fn(name: str) -> Callable[[Tensor], Tensor]:
    """The activation function of a name.

    Raises:
        ConfigError: an unknown name; the message lists the known ones.
    """
    if name not in _ACTIVATIONS:
        raise ConfigError(f"unknown activation function {quoted(name)}; choose one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Fraction of correct classes among the labels that are not ``ignore_index``, as a scalar; nan without any.

    Args:
        logits: (..., C).
        labels: (...).
        ignore_index: a label that is not counted.
    """
    return (logits.argmax(-1) == labels)[labels != ignore_index].float().mean()


class Accuracy(nn.Module):
    """:func:`accuracy` as a module."""

    def __init__(self, ignore_index: int = IGNORED) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        return accuracy(inputs, target, self.ignore_index)


def prune_linear_layer(layer: nn.Linear, index: Tensor, dim: int = 0) -> nn.Linear:
    """A new linear map with only the outputs (``dim`` 0) or inputs (``dim`` 1) ``index`` of ``layer``."""
    weight = layer.weight.detach().index_select(dim, index.to(layer.weight.device))
    pruned = nn.Linear(weight.shape[1], weight.shape[0], layer.bias is not None, weight.device, weight.dtype)
    with torch.no_grad():
        pruned.weight.copy_(weight)
        if layer.bias is not None:
            pruned.bias.copy_(layer.bias[index.to(layer.bias.device)] if dim == 0 else layer.bias)
    return pruned
