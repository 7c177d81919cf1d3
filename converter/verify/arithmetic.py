"""The mathematics of a transformer in a few plain functions, for evaluations that must not use the model's own code."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """One protein's attention, (S, heads * size) each and so the result."""
    query, key, value = (rows.unflatten(1, (heads, -1)) for rows in (query, key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[2])
    return torch.einsum("hqk,khd->qhd", torch.softmax(scores, dim=-1), value).flatten(1)


def attend_each(query: Tensor, key: Tensor, value: Tensor, heads: int, lengths: list[int]) -> Tensor:
    """Several proteins in one row (T, heads * size), each attending to itself."""
    proteins = zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True)
    return torch.cat([attend(*protein, heads) for protein in proteins])


def normalise(inputs: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Layer norm over the last dimension (Ba et al. 2016)."""
    mean = inputs.mean(-1, keepdim=True)
    variance = (inputs - mean).square().mean(-1, keepdim=True)
    return (inputs - mean) / torch.sqrt(variance + epsilon) * weight + bias


def activate(values: Tensor, name: str) -> Tensor:
    """``gelu``: x times the normal distribution function (Hendrycks, Gimpel 2016); ``gelu_tanh`` approximates it."""
    if name == "gelu_tanh":
        return 0.5 * values * (1 + torch.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)))
    if name == "gelu":
        return 0.5 * values * (1 + torch.erf(values / math.sqrt(2)))
    return F.relu(values) if name == "relu" else values * torch.sigmoid(values)
