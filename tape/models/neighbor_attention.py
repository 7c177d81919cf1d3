"""Initializations in which attention heads attend to neighboring residues: ``initial_attention``.

With random projections, a head initially attends to all residues equally and has to learn that near ones matter. The
masked-language-modeling loss depends little on it (the composition of a protein explains much more), and a few hundred
labeled proteins are not enough: small models never learn to use the order of the residues. This initialization encodes
it in the weights. The architecture is unchanged, and all weights are trained as usual.

- The last ``head_size`` components of the residual stream contain the position, as sinusoids with ``head_size / 2``
  frequencies in a geometric sequence (Vaswani et al. 2017, section 3.5). Initially, neither word embeddings nor
  attention nor MLP write to these components.
- The query of a head consists of these components. Its key consists of the same components, rotated by the angle of the
  head's offset d, so that the logit is largest for key position = query position + d. Initializing query and key
  projections for a known structure follows mimetic initialization (Trockman and Kolter 2023).
- Both embeddings are initially larger than the outputs of the blocks, so that later blocks can still read the position.

With ``neighbours``, all heads begin in this way. Pretraining makes most of them in later blocks attend to the whole
protein, whose composition explains more of the loss, and outputs of blocks drown the position. With
``half-neighbours``, the second half of each block's heads begins at random, so that the first half can stay where it
is, and positions are four times as large. Without pretraining, ``neighbours`` is better for contacts; docs/results.md
has both.

The constants below were chosen by the masked-language-modeling loss and the contact precision on validation proteins.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

# Standard deviation of word embeddings, and by kind amplitude of the sinusoids, in units of ``std`` of other matrices.
_WORD_SCALE = 10.0
_POSITION_SCALES = {"neighbours": 20.0, "half-neighbours": 80.0}
# Attention logit at the head's offset; logits of distant residues are 0 on average.
_PEAK = 20.0
# Angular frequencies in radians per residue: the highest distinguishes neighbors, the lowest has a period of 400
# residues.
_HIGHEST, _LOWEST = 0.8 * math.pi, 2 * math.pi / 400
# The heads of all layers that look at neighbors take the offsets 1, -1, 2, -2, ... in turn, and start again after the
# farthest.
_FARTHEST = 8

_PROJECTION = re.compile(r"\blayer\.(\d+)\.attention\.self\.(query|key)\.weight$")
# Output projections to the residual stream.
OUTPUT_PROJECTIONS = ("attention.dense.weight", "mlp.dense_4h_h.weight")


def neighbor_start(name: str, values: Tensor, heads: int, std: float, kind: str = "neighbours") -> Tensor:
    """Initial values of one parameter of a transformer.

    Args:
        name: name of the parameter, such as ``bert.encoder.layer.0.attention.self.query.weight``.
        values: its initial values by the usual initialization.
        heads: number of attention heads; H / heads must be even.
        std: initial standard deviation of matrices.
        kind: ``neighbours`` or ``half-neighbours``.

    Returns:
        Values of the same shape; ``values`` itself for parameters that are not concerned.
    """
    if name.endswith("word_embeddings.weight"):
        size = values.shape[1] // heads
        return torch.cat((values[:, :-size] * _WORD_SCALE, torch.zeros_like(values[:, -size:])), dim=1)
    if name.endswith("position_embeddings.weight"):
        size = values.shape[1] // heads
        sinusoids = _POSITION_SCALES[kind] * std * _sinusoids(values.shape[0], size)
        return torch.cat((torch.zeros_like(values[:, :-size]), sinusoids.to(values)), dim=1)
    if name.endswith(OUTPUT_PROJECTIONS):
        size = values.shape[0] // heads
        return torch.cat((values[:-size], torch.zeros_like(values[-size:])))
    if match := _PROJECTION.search(name):
        size = values.shape[1] // heads
        shifts = offsets(int(match[1]), heads, kind)
        if match[2] == "query":
            shifts = [None if shift is None else 0 for shift in shifts]
        rotated = _gain(values.shape[1], size, kind) * torch.cat([_rotation(size, shift) for shift in shifts])
        return torch.cat((values[:, :-size], values[:, -size:] + rotated.to(values)), dim=1)
    return values


def offsets(layer: int, heads: int, kind: str = "neighbours") -> list[int | None]:
    """Initial offset (key position minus query position) of each head of a layer, which is counted from 0.

    None: the head begins at random.
    """
    number = heads // 2 if kind == "half-neighbours" else heads
    places = (place % (2 * _FARTHEST) for place in range(layer * number, (layer + 1) * number))
    return [*((place // 2 + 1) * (1 if place % 2 == 0 else -1) for place in places), *[None] * (heads - number)]


def _frequencies(size: int) -> Tensor:
    count = size // 2
    steps = torch.arange(count, dtype=torch.float64) / max(1, count - 1)
    return _HIGHEST * (_LOWEST / _HIGHEST) ** steps


def _sinusoids(positions: int, size: int) -> Tensor:
    """(positions, size): sine and cosine of each frequency, next to each other."""
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * _frequencies(size)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def _rotation(size: int, shift: int | None) -> Tensor:
    """(size, size) rotation that maps the sinusoids of position p to those of p - shift; None: zeros."""
    if shift is None:
        return torch.zeros(size, size, dtype=torch.float64)
    angles = _frequencies(size) * shift
    sine, cosine = angles.sin(), angles.cos()
    blocks = torch.stack((torch.stack((cosine, -sine), dim=-1), torch.stack((sine, cosine), dim=-1)), dim=-2)
    return torch.block_diag(*blocks)


def _gain(hidden: int, size: int, kind: str) -> float:
    """Factor of query and key weights such that the logit at the head's offset is _PEAK after the first layer norm."""
    share = size / hidden
    power = _POSITION_SCALES[kind] ** 2 / 2
    variance = _WORD_SCALE**2 * (1 - share) + power * share  # per component of the sum of embeddings, in units of std
    amplitude_squared = 2 * power / variance
    return math.sqrt(_PEAK * math.sqrt(size) / (size / 2 * amplitude_squared))
