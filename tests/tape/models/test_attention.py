"""Attention against a dense reference in float64: one S x S softmax, with a block-diagonal mask for packed rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tape.models import attention, low_precision
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


def results(lengths: list[int], packed: bool, device: str, dtype: torch.dtype, dropout: float = 0.0) -> list[Tensor]:
    """Context, and the gradients of query, key and value; in float64 on the CPU."""
    *inputs, gradient = states(lengths)
    inputs = [tensor.to(device, dtype).requires_grad_() for tensor in inputs]
    if packed:
        context = AttentionCore(dropout)(*inputs, None, PackedLayout.from_lengths(lengths, device))
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


@pytest.mark.parametrize("lengths", [*LENGTHS, [300, 301, 290], [17] * 3, [20, 20, 7]], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 1e-12])
@pytest.mark.parametrize("kept_scores", [None, 0], ids=["eager", "fused"])
def test_packed_rows_with_rounded_slots(
    lengths: list[int], dropout: float, kept_scores: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_precision, "is_native", lambda dtype: True)
    if kept_scores is not None:
        monkeypatch.setattr(attention, "_EAGER_KEPT_SCORES", kept_scores)
    reference = results(lengths, False, "cpu", torch.float64)
    for ours, expected in zip(results(lengths, True, "cpu", torch.bfloat16, dropout), reference, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0.1)


def test_products_in_half_precision_have_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_precision, "is_native", lambda dtype: True)
    shapes = set()
    original = torch.bmm

    def recorded(left: Tensor, right: Tensor) -> Tensor:
        shapes.add((*left.shape, right.shape[-1]))
        return original(left, right)

    monkeypatch.setattr(torch, "bmm", recorded)
    for length in range(257, 353):
        query, key, value, _ = (tensor.bfloat16() for tensor in states([length]))
        AttentionCore(0.0)(query, key, value, None, PackedLayout.from_lengths([length]))
    assert shapes == {(HEADS, slots, slots, SIZE) for slots in range(272, 353, 16)}


@pytest.mark.parametrize("implementation", ["_eager", "_sdpa"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_both_cpu_implementations_ignore_padding(implementation: str, dtype: torch.dtype, tolerance: float) -> None:
    lengths, longest = [7, 12, 1], 12
    inputs = torch.randn(4, 3, longest, HEADS, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    query, key, value, gradient = inputs.to(dtype).double()
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    gradient[~mask] = 0
    own = [tensor.to(dtype).requires_grad_() for tensor in (query, key, value)]
    context = getattr(attention, implementation)(*own, mask, 0.0)
    context.backward(gradient.to(dtype))
    for number, length in enumerate(lengths):
        reference = [tensor[number : number + 1, :length].requires_grad_() for tensor in (query, key, value)]
        expected = dense(*reference, [length])
        gradients = torch.autograd.grad(expected, reference, gradient[number : number + 1, :length])
        torch.testing.assert_close(context[number, :length].double(), expected[0], rtol=0, atol=tolerance)
        for tensor, wanted in zip(own, gradients, strict=True):
            assert tensor.grad is not None
            torch.testing.assert_close(tensor.grad[number, :length].double(), wanted[0], rtol=0, atol=tolerance)
            assert not tensor.grad[number, length:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eager_attention_without_any_real_token_is_finite(dtype: torch.dtype) -> None:
    inputs = torch.randn(3, 1, 5, HEADS, SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert attention._eager(*inputs, torch.zeros(1, 5, dtype=torch.bool), 0.0).isfinite().all()


def test_mask_of_eager_attention_is_no_part_of_the_backward_pass() -> None:
    """Otherwise, autograd would copy the gradients of all scores (``CopySlices``)."""
    inputs = torch.randn(3, 2, 5, HEADS, SIZE, generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_()
    mask = torch.arange(5) < torch.tensor([5, 3])[:, None]
    found, nodes = set(), [attention._eager(*inputs, mask, 0.0).grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in found:
            found.add(node)
            nodes += [following for following, _ in node.next_functions]
    names = {node.name() for node in found}
    assert "SoftmaxBackward0" in names
    assert not [name for name in names if "Copy" in name or "Add" in name]


@pytest.mark.parametrize("masked", [True, False])
def test_eager_attention_computes_few_scores_at_a_time_in_inference(
    masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = torch.randn(3, 5, 7, HEADS, SIZE, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) < torch.tensor([7, 2, 3, 7, 5])[:, None] if masked else None
    expected = attention._eager(*inputs, mask, 0.0)
    scores: list[int] = []
    softmax = Tensor.softmax
    monkeypatch.setattr(Tensor, "softmax", lambda tensor, dim: scores.append(tensor.numel()) or softmax(tensor, dim))
    monkeypatch.setattr(attention, "_EAGER_SCORES", 2 * HEADS * 7 * 7)
    with torch.no_grad():
        torch.testing.assert_close(attention._eager(*inputs, mask, 0.0), expected)
    assert scores == [2 * HEADS * 49, 2 * HEADS * 49, HEADS * 49]


def test_eager_attention_drops_probabilities_and_rescales_the_others() -> None:
    torch.manual_seed(0)
    equal = torch.zeros(1, 400, HEADS, SIZE)
    context = attention._eager(equal, equal, torch.ones_like(equal), None, 0.25)
    kept = context[..., 0] * 400 * 0.75  # numbers of probabilities that were not dropped
    torch.testing.assert_close(kept, kept.round(), rtol=0, atol=1e-2)
    assert kept.unique().numel() > 10
    assert kept.mean() == pytest.approx(300, abs=2)


def test_long_proteins_are_not_padded_to_others_of_similar_length() -> None:
    layout = PackedLayout.from_lengths([300, 290, 300, 100, 90, 20])
    assert sorted((group.proteins, group.longest) for group in layout._padding.groups) == [
        (1, 20),
        (1, 290),
        (2, 100),
        (2, 300),
    ]


@pytest.mark.parametrize(
    ("dtype", "is_native", "dropout", "eager"),
    [
        (torch.bfloat16, True, 0.0, [16]),
        (torch.bfloat16, True, 0.1, [16, 1100]),
        (torch.bfloat16, False, 0.0, []),  # low_precision replaces the fused kernel
        (torch.bfloat16, False, 0.1, []),
        (torch.float32, False, 0.0, []),
        (torch.float32, False, 0.1, [16, 1100]),
    ],
)
def test_implementation_by_precision_length_and_dropout(
    dtype: torch.dtype, is_native: bool, dropout: float, eager: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(attention, "_eager", lambda query, *rest: lengths.append(query.shape[1]) or query)
    monkeypatch.setattr(low_precision, "is_fast", lambda device_type, dtype: is_native)
    for length in (16, 1100):
        AttentionCore(dropout)(*torch.randn(3, 1, length, 1, 8).to(dtype), None, None)
    assert lengths == eager


@pytest.mark.parametrize(("dropout", "trained"), [(0.0, []), (0.1, [16])])
def test_large_batches_do_not_keep_their_probabilities_in_training(
    dropout: float, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(attention, "_eager", lambda query, *rest: lengths.append(query.shape[1]) or query)
    monkeypatch.setattr(attention, "_EAGER_KEPT_SCORES", 4 * 2 * 16 * 16)
    monkeypatch.setattr(low_precision, "is_fast", lambda device_type, dtype: True)
    core = AttentionCore(dropout)
    core(*torch.randn(3, 4, 16, 2, 8).bfloat16(), None, None)
    assert lengths == [16]  # at the limit
    core(*torch.randn(3, 5, 16, 2, 8).bfloat16(), None, None)
    assert lengths == [16, *trained]
    with torch.no_grad():
        core(*torch.randn(3, 5, 16, 2, 8).bfloat16(), None, None)
    assert lengths == [16, *trained, 16]


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
