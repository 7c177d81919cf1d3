"""An initialization in which attention heads attend to neighboring residues: ``initial_attention="neighbours"``.

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

The constants below were chosen by the masked-language-modeling loss and the contact precision on validation proteins.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

# Standard deviation of word embeddings, and amplitude of the sinusoids, in units of ``std`` of other matrices.
_WORD_SCALE = 10.0
_POSITION_SCALE = 20.0
# Attention logit at the head's offset; logits of distant residues are 0 on average.
_PEAK = 20.0
# Angular frequencies in radians per residue: the highest distinguishes neighbors, the lowest has a period of 400
# residues.
_HIGHEST, _LOWEST = 0.8 * math.pi, 2 * math.pi / 400
# The heads of all layers take the offsets 1, -1, 2, -2, ... in turn, and start again after the farthest.
_FARTHEST = 8

_PROJECTION = re.compile(r"\blayer\.(\d+)\.attention\.self\.(query|key)\.weight$")
# Output projections to the residual stream.
OUTPUT_PROJECTIONS = ("attention.dense.weight", "mlp.dense_4h_h.weight")


def neighbor_start(name: str, values: Tensor, heads: int, std: float) -> Tensor:
    """Initial values of one parameter of a transformer.

    Args:
        name: name of the parameter, such as ``bert.encoder.layer.0.attention.self.query.weight``.
        values: its initial values by the usual initialization.
        heads: number of attention heads; H / heads must be even.
        std: initial standard deviation of matrices.

    Returns:
        Values of the same shape; ``values`` itself for parameters that are not concerned.
    """
    if name.endswith("word_embeddings.weight"):
        size = values.shape[1] // heads
        return torch.cat((values[:, :-size] * _WORD_SCALE, torch.zeros_like(values[:, -size:])), dim=1)
    if name.endswith("position_embeddings.weight"):
        size = values.shape[1] // heads
        sinusoids = _POSITION_SCALE * std * _sinusoids(values.shape[0], size)
        return torch.cat((torch.zeros_like(values[:, :-size]), sinusoids.to(values)), dim=1)
    if name.endswith(OUTPUT_PROJECTIONS):
        size = values.shape[0] // heads
        return torch.cat((values[:-size], torch.zeros_like(values[-size:])))
    if match := _PROJECTION.search(name):
        size = values.shape[1] // heads
        shifts = offsets(int(match[1]), heads) if match[2] == "key" else [0] * heads
        rotated = _gain(values.shape[1], size) * torch.cat([_rotation(size, shift) for shift in shifts])
        return torch.cat((values[:, :-size], values[:, -size:] + rotated.to(values)), dim=1)
    return values


def offsets(layer: int, heads: int) -> list[int]:
    """Initial offset (key position minus query position) of each head of a layer, which is counted from 0."""
    places = (place % (2 * _FARTHEST) for place in range(layer * heads, (layer + 1) * heads))
    return [(place // 2 + 1) * (1 if place % 2 == 0 else -1) for place in places]


def _frequencies(size: int) -> Tensor:
    count = size // 2
    steps = torch.arange(count, dtype=torch.float64) / max(1, count - 1)
    return _HIGHEST * (_LOWEST / _HIGHEST) ** steps


def _sinusoids(positions: int, size: int) -> Tensor:
    """(positions, size): sine and cosine of each frequency, next to each other."""
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * _frequencies(size)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def _rotation(size: int, shift: int) -> Tensor:
    """(size, size) rotation that maps the sinusoids of position p to those of p - shift."""
    angles = _frequencies(size) * shift
    sine, cosine = angles.sin(), angles.cos()
    blocks = torch.stack((torch.stack((cosine, -sine), dim=-1), torch.stack((sine, cosine), dim=-1)), dim=-2)
    return torch.block_diag(*blocks)


def _gain(hidden: int, size: int) -> float:
    """Factor of query and key weights such that the logit at the head's offset is _PEAK after the first layer norm."""
    share = size / hidden
    power = _POSITION_SCALE**2 / 2
    variance = _WORD_SCALE**2 * (1 - share) + power * share  # per component of the sum of embeddings, in units of std
    amplitude_squared = 2 * power / variance
    return math.sqrt(_PEAK * math.sqrt(size) / (size / 2 * amplitude_squared))
