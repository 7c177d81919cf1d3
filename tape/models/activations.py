"""Activation functions by their names in a configuration.

On a CPU, torch's GELU takes two to three times as long in the tanh form as in the erf form. Because tanh(z) =
2 sigmoid(2 z) - 1, the tanh form equals x sigmoid(2 z), which is faster, in fp32 only without gradients. In bf16, the
forward pass also computes the derivative and keeps it instead of its input, so that the backward pass is a single
product. Intermediate values are fp32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .graph_capture import is_captured

# GELU(x) = x / 2 (1 + tanh z) with z = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks and Gimpel 2016, section 2)
_SCALE = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715
# The chain of elementwise operations runs over blocks of this many elements, whose intermediate values stay in cache.
_BLOCK = 1 << 18


class TanhGELU(nn.Module):
    """GELU in the tanh form."""

    def forward(self, values: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled() and values.requires_grad
        if values.device.type == "cpu" and not is_captured():
            if values.dtype == torch.bfloat16 and differentiable:
                output: Tensor = _TanhGELU.apply(values)
                return output
            if values.dtype in (torch.bfloat16, torch.float32) and not differentiable:
                return _without_derivative(values)
        return F.gelu(values, approximate="tanh")


class _TanhGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.contiguous()
        output, derivative = torch.empty_like(values), torch.empty_like(values)
        _compute(values.view(-1), output.view(-1), derivative.view(-1))
        ctx.save_for_backward(derivative)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (derivative,) = ctx.saved_tensors
        return gradient * derivative


def _buffers(number: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """fp32 buffers for blocks of ``values``, and the factor of 2 z as a tensor."""
    # explicit, since torch.set_default_dtype and torch.set_default_device are the user's
    options: Any = {"dtype": torch.float32, "device": values.device}
    return torch.empty(number, min(_BLOCK, values.numel()), **options), torch.tensor(_SCALE, **options)


def _without_derivative(values: Tensor) -> Tensor:
    """GELU of bf16 or fp32 values."""
    values = values.detach().contiguous()
    output = torch.empty_like(values)
    is_fp32 = values.dtype == torch.float32
    buffers, scale = _buffers(0 if is_fp32 else 2, values)
    for block, result in zip(values.view(-1).split(_BLOCK), output.view(-1).split(_BLOCK), strict=True):
        x, y = (block, result) if is_fp32 else buffers[:, : len(block)]
        if not is_fp32:
            x.copy_(block)
        torch.addcmul(scale, x, x, value=_SCALE * _CUBIC, out=y).mul_(x)  # 2 z
        y.sigmoid_().mul_(x)
        if not is_fp32:
            result.copy_(y)
    return output


def _compute(values: Tensor, output: Tensor, derivative: Tensor) -> None:
    """Write GELU of bf16 ``values`` to ``output``, and its derivative; all one-dimensional."""
    buffers, scale = _buffers(4, values)
    for start in range(0, values.numel(), _BLOCK):
        block = slice(start, min(start + _BLOCK, values.numel()))
        x, square, y, sigmoid = buffers[:, : block.stop - block.start]
        x.copy_(values[block])
        torch.mul(x, x, out=square)
        torch.add(scale, square, alpha=_SCALE * _CUBIC, out=y).mul_(x)  # 2 z
        torch.sigmoid(y, out=sigmoid)
        torch.mul(x, sigmoid, out=y)
        output[block] = y
        # s + y (1 - s) d(2 z)/dx
        torch.add(scale, square, alpha=3 * _SCALE * _CUBIC, out=square)
        torch.addcmul(y, y, sigmoid, value=-1, out=y)
        derivative[block] = torch.addcmul(sigmoid, y, square, out=y)


def activation(name: str) -> nn.Module:
    """The module for a configuration's ``hidden_act``."""
    modules: dict[str, nn.Module] = {
        "gelu": nn.GELU(),
        "gelu_tanh": TanhGELU(),
        "relu": nn.ReLU(),
        "swish": nn.SiLU(),
    }
    return modules[name]
