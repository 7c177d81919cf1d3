"""Dropout (Srivastava et al. 2014) that is fast on a CPU.

torch draws one number per element on a CPU, from a generator that runs on one core: with the usual rate of 0.1, a
finetuning step spends a third of its time on this. Here each element takes 16 bits of a faster generator, which torch's
generator seeds. The masks are therefore reproducible as usual: by ``torch.manual_seed``, in activation checkpointing,
and with a random stream per tensor-parallel rank. The residual connection around a dropout is one operation with it, as
Megatron-LM's fusion of bias, dropout and addition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .graph_capture import is_captured

_LEVELS = 1 << 16  # a rate is rounded to a multiple of 1 / 65,536
_PER_WORD = 4  # elements per 64-bit random word
_HALF_RANGE = 1 << 63  # of 64-bit integers


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` with :func:`dropout`."""

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.p) if self.training else values

    def add(self, residual: Tensor, values: Tensor) -> Tensor:
        """``residual + self(values)``, in fewer operations."""
        return dropout_add(residual, values, self.p) if self.training else residual + values


def dropout(values: Tensor, rate: float) -> Tensor:
    """Set each element to 0 with probability ``rate``, and scale the others by 1 / (1 - rate).

    Args:
        values: any shape and floating-point type.
        rate: from 0 to 1; on a CPU rounded to a multiple of 1 / 65,536.
    """
    levels = round(rate * _LEVELS)
    if not _is_fast(values, levels):
        return F.dropout(values, rate)
    output: Tensor = _Dropout.apply(values, levels)
    return output


def dropout_add(residual: Tensor, values: Tensor, rate: float) -> Tensor:
    """``residual + dropout(values, rate)``.

    Args:
        residual: of the shape of ``values``; in mixed precision, it may have the wider type.
        values: any shape and floating-point type.
        rate: from 0 to 1, see :func:`dropout`.
    """
    levels = round(rate * _LEVELS)
    is_sum_like_residual = torch.result_type(residual, values) == residual.dtype and residual.shape == values.shape
    if not (_is_fast(values, levels) and is_sum_like_residual):
        return residual + dropout(values, rate)
    output: Tensor = _DropoutAdd.apply(residual, values, levels)
    return output


def _is_fast(values: Tensor, levels: int) -> bool:
    """Whether the implementation of this module is used instead of torch's."""
    return values.device.type == "cpu" and 0 < levels < _LEVELS and not is_captured()


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, levels: int) -> Tensor:
        kept = _random_mask(values.numel(), levels).view(values.shape)
        ctx.save_for_backward(kept)
        ctx.scale = _LEVELS / (_LEVELS - levels)
        return _masked(kept, values, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _masked(kept, gradient, ctx.scale), None


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, values: Tensor, levels: int) -> Tensor:
        kept = _random_mask(values.numel(), levels).view(values.shape)
        ctx.save_for_backward(kept)
        ctx.scale, ctx.dtype = _LEVELS / (_LEVELS - levels), values.dtype
        output = kept.to(residual.dtype)
        return torch.addcmul(residual, output, values, value=ctx.scale, out=output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (kept,) = ctx.saved_tensors
        return gradient, _masked(kept, gradient.to(ctx.dtype), ctx.scale), None


def _masked(kept: Tensor, values: Tensor, scale: float) -> Tensor:
    """``kept * values * scale``, in the memory of a single result."""
    return kept.to(values.dtype).mul_(values).mul_(scale)


class _TorchSeed(ISeedSequence):
    """Seeds of numpy's generators from torch's generator, whose words need no mixing, unlike a user's seed."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        words = torch.randint(-_HALF_RANGE, _HALF_RANGE - 1, (n_words,), dtype=torch.int64, device="cpu")
        return words.numpy().view(np.uint64)


def _random_mask(number: int, levels: int) -> Tensor:
    """(number,) uint8, 0 with probability ``levels`` / 65,536 and otherwise 1."""
    seed: Any = _TorchSeed()  # numpy's annotation lacks the interface, which its documentation allows
    generator = np.random.SFC64(seed)
    words = generator.random_raw(-(-number // _PER_WORD))
    kept = words.view(np.uint16)[:number] >= levels
    return torch.from_numpy(kept.view(np.uint8))
