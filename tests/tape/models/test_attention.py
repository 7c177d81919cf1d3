"""Attention over packed rows against a dense reference: one S x S softmax with a block-diagonal mask, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tape.models.attention import AttentionCore, PackedLayout

LENGTHS = [[1], [5, 3, 9], [16, 16, 16, 16], [2, 40, 7, 7, 33, 1], [61]]
HEADS, SIZE = 3, 16


def dense(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """The complete T x T matrix, minus infinity between proteins."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(query.device)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * SIZE**-0.5
    scores = scores.masked_fill(owner[:, None] != owner[None, :], float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value)


def states(lengths: list[int]) -> list[Tensor]:
    """Query, key, value and a gradient for the result."""
    generator = torch.Generator().manual_seed(sum(lengths))
    shape = (1, sum(lengths), HEADS, SIZE)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]


def results(lengths: list[int], packed: bool, device: str, dtype: torch.dtype) -> list[Tensor]:
    """Context, and the gradients of query, key and value; in float64 on the CPU."""
    *inputs, gradient = states(lengths)
    inputs = [tensor.to(device, dtype).requires_grad_() for tensor in inputs]
    if packed:
        context = AttentionCore(0.0)(*inputs, None, PackedLayout.from_lengths(lengths, device))
    else:
        context = dense(*inputs, lengths)
    context.backward(gradient.to(device, dtype))
    gradients = [tensor.grad for tensor in inputs if tensor.grad is not None]
    return [tensor.detach().cpu().double() for tensor in (context, *gradients)]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_packed_rows_on_the_cpu(lengths: list[int], dtype: torch.dtype, tolerance: float) -> None:
    reference = results(lengths, False, "cpu", torch.float64)
    for ours, expected in zip(results(lengths, True, "cpu", dtype), reference, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="variable-length attention needs CUDA")
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_packed_rows_on_cuda(lengths: list[int], dtype: torch.dtype) -> None:
    """Variable-length kernels in half precision, groups in fp32."""
    tolerance = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-5}[dtype]
    reference = results(lengths, False, "cpu", torch.float64)
    for ours, expected in zip(results(lengths, True, "cuda", dtype), reference, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)
