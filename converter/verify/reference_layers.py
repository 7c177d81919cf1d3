"""The layers of a transformer as plain functions, for reference forward passes independent of the model's code."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention within one protein; inputs and result are (S, heads * size)."""
    query, key, value = (rows.unflatten(1, (heads, -1)) for rows in (query, key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[2])
    return torch.einsum("hqk,khd->qhd", torch.softmax(scores, dim=-1), value).flatten(1)


def packed_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, lengths: list[int]) -> Tensor:
    """Attention within each of several proteins that are packed into one row (T, heads * size)."""
    proteins = zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True)
    return torch.cat([attention(*protein, heads) for protein in proteins])


def layer_norm(inputs: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Layer norm over the last dimension (Ba et al. 2016)."""
    mean = inputs.mean(-1, keepdim=True)
    variance = (inputs - mean).square().mean(-1, keepdim=True)
    return (inputs - mean) / torch.sqrt(variance + epsilon) * weight + bias


def apply_activation(values: Tensor, name: str) -> Tensor:
    """The activation ``gelu`` (Hendrycks and Gimpel 2016), its approximation ``gelu_tanh``, ``relu``, or else swish."""
    if name == "gelu_tanh":
        return 0.5 * values * (1 + torch.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)))
    if name == "gelu":
        return 0.5 * values * (1 + torch.erf(values / math.sqrt(2)))
    return F.relu(values) if name == "relu" else values * torch.sigmoid(values)
