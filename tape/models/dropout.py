"""Dropout (Srivastava et al. 2014) that is fast on a CPU.

torch draws one number per element on a CPU, from a generator that runs on one core: with the usual rate of 0.1, a
finetuning step spends a third of its time on this. Here each element takes 16 bits of a faster generator, which torch's
generator seeds. The masks are therefore reproducible as usual: by ``torch.manual_seed``, in activation checkpointing,
and with a random stream per tensor-parallel rank.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .graph_capture import is_building_graph

_LEVELS = 1 << 16  # a rate is rounded to a multiple of 1 / 65,536
_PER_WORD = 4  # elements per 64-bit random word
_SEEDS = 1 << 62


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` with :func:`dropout`."""

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.p) if self.training else values


def dropout(values: Tensor, rate: float) -> Tensor:
    """Set each element to 0 with probability ``rate``, and scale the others by 1 / (1 - rate).

    Args:
        values: any shape and floating-point type.
        rate: from 0 to 1; on a CPU rounded to a multiple of 1 / 65,536.
    """
    levels = round(rate * _LEVELS)
    if values.device.type != "cpu" or is_building_graph() or not 0 < levels < _LEVELS:
        return F.dropout(values, rate)
    output: Tensor = _Dropout.apply(values, levels)
    return output


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, levels: int) -> Tensor:
        kept = _random_mask(values.numel(), levels).view(values.shape)
        ctx.save_for_backward(kept)
        ctx.scale = _LEVELS / (_LEVELS - levels)
        return torch.mul(kept, values).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return torch.mul(kept, gradient).mul_(ctx.scale), None


def _random_mask(number: int, levels: int) -> Tensor:
    """(number,) uint8, 0 with probability ``levels`` / 65,536 and otherwise 1."""
    generator = np.random.SFC64(int(torch.randint(_SEEDS, (), device="cpu")))
    words = generator.random_raw(-(-number // _PER_WORD))
    kept = words.view(np.uint16)[:number] >= levels
    return torch.from_numpy(kept.view(np.uint8))
