"""A start from which attention heads look at a residue's neighbours: ``initial_attention="neighbours"``.

With random projections a head weighs all residues alike, whatever their distance, and must find out from the data that
near ones matter. Masked residues say little about it (a protein's composition explains far more of them), and so do a
few hundred labelled proteins: a small model stays blind to the order of residues. Here the weights begin with that
knowledge; the architecture is what it was, and every weight is trained as before.

- The last ``head_size`` components of the residual stream carry the position, as sinusoids of ``head_size / 2``
  frequencies in a geometric sequence (Vaswani et al. 2017, section 3.5). Nothing else writes there at first: not the
  word embeddings, nor attention and MLP.
- A head's query is those components, its key the same ones turned by the angle of its offset d, so that their product
  is greatest where key position = query position + d. Starting query and key from what the positions need is the idea
  of mimetic initialisation (Trockman and Kolter 2023).
- Both embeddings begin larger than what the blocks add at first, so that later blocks can read the position too.

Every number below was chosen on validation proteins: the loss of masked residues, and contacts.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

# Times the initial standard deviation of other matrices: that of word embeddings, and the amplitude of positions.
_WORD_SCALE = 10.0
_POSITION_SCALE = 20.0
# Logit of the residue a head looks at, before the softmax; far from it logits average 0.
_PEAK = 20.0
# Angular frequencies, radians a residue: from neighbours told apart to 400 residues a turn.
_HIGHEST, _LOWEST = 0.8 * math.pi, 2 * math.pi / 400
# Heads take the offsets 1, -1, 2, -2, ... in turn, through the layers, and begin again after the farthest.
_FARTHEST = 8

_PROJECTION = re.compile(r"\blayer\.(\d+)\.attention\.self\.(query|key)\.weight$")
# Projections onto the residual stream.
OUTPUT_PROJECTIONS = ("attention.dense.weight", "mlp.dense_4h_h.weight")


def neighbour_start(name: str, values: Tensor, heads: int, std: float) -> Tensor:
    """Initial values of one parameter of a transformer.

    Args:
        name: of the parameter, such as ``bert.encoder.layer.0.attention.self.query.weight``; those that play no part
            are returned as they are.
        values: as they would start otherwise.
        heads: attention heads; H / heads must be even.
        std: initial standard deviation of matrices.

    Returns:
        New values of the same shape; ``values`` is not changed.
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
        turned = _gain(values.shape[1], size) * torch.cat([_turn(size, shift) for shift in shifts])
        return torch.cat((values[:, :-size], values[:, -size:] + turned.to(values)), dim=1)
    return values


def offsets(layer: int, heads: int) -> list[int]:
    """Key position minus query position that each head of a layer, counted from 0, begins with."""
    places = (place % (2 * _FARTHEST) for place in range(layer * heads, (layer + 1) * heads))
    return [(place // 2 + 1) * (1 if place % 2 == 0 else -1) for place in places]


def _frequencies(size: int) -> Tensor:
    count = size // 2
    steps = torch.arange(count, dtype=torch.float64) / max(1, count - 1)
    return _HIGHEST * (_LOWEST / _HIGHEST) ** steps


def _sinusoids(positions: int, size: int) -> Tensor:
    """(positions, size): sine and cosine of each frequency, side by side."""
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * _frequencies(size)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def _turn(size: int, shift: int) -> Tensor:
    """(size, size): maps the sinusoids of position p to those of p - shift."""
    angles = _frequencies(size) * shift
    sine, cosine = angles.sin(), angles.cos()
    blocks = torch.stack((torch.stack((cosine, -sine), dim=-1), torch.stack((sine, cosine), dim=-1)), dim=-2)
    return torch.block_diag(*blocks)


def _gain(hidden: int, size: int) -> float:
    """Factor of query and of key that makes the logit of a head's residue _PEAK, after the first layer norm."""
    share = size / hidden
    power = _POSITION_SCALE**2 / 2
    variance = _WORD_SCALE**2 * (1 - share) + power * share  # of a component of the sum of embeddings, in units of std
    amplitude_squared = 2 * power / variance
    return math.sqrt(_PEAK * math.sqrt(size) / (size / 2 * amplitude_squared))
