"""Convolutions over the real tokens of a batch compute what convolutions of the padded batch do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tape.models import heads, low_precision, packed_convolution
from tape.models.heads import SimpleConv
from tape.models.packed_convolution import SeparatedRow, convolve

LENGTHS = (9, 1, 5)


def batch(lengths: tuple[int, ...] = LENGTHS, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features (B, S, 4), also at padding, and the mask."""
    features = torch.randn(len(lengths), max(lengths), 4, generator=torch.Generator().manual_seed(3), dtype=dtype)
    return features, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("outputs", [7, 2])  # more and fewer than inputs
@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize("slots", [1, 2, 11])
def test_convolution_of_a_row(outputs: int, width: int, slots: int) -> None:
    generator = torch.Generator().manual_seed(0)
    row, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((slots, 4), (outputs, 4, width), (outputs,))
    )
    expected = F.conv1d(row.t()[None], weight, bias, padding=width // 2)[0].t()
    torch.testing.assert_close(convolve(row, weight, bias), expected)


def channels_first(row: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv1d(row.t()[None], weight, bias, padding=weight.shape[2] // 2)[0].t()


def operands(slots: int, channels: int, outputs: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    """Row, weight and bias."""
    generator = torch.Generator().manual_seed(slots)
    shapes = ((slots, channels), (outputs, channels, width), (outputs,))
    return [torch.randn(*shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def with_gradients(function: Callable[..., Tensor], values: list[Tensor]) -> list[Tensor]:
    """The convolution and its gradients."""
    result = function(*values)
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
    return [result.detach(), *torch.autograd.grad(result, values, weights)]


@pytest.mark.parametrize("shape", [(1, 1, 3, 5), (2, 1, 3, 5), (9, 4, 7, 3), (40, 16, 5, 5), (300, 128, 512, 5)])
def test_channels_last_convolution(shape: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_precision, "uses_tiles", lambda dtype: True)
    values = operands(*shape, torch.float64)
    for ours, expected in zip(with_gradients(convolve, values), with_gradients(channels_first, values), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.skipif(not low_precision.uses_tiles(torch.bfloat16), reason="needs a processor with AMX")
@pytest.mark.parametrize("shape", [(128, 128, 512, 5), (1001, 128, 512, 5), (700, 512, 512, 5), (333, 100, 64, 3)])
def test_channels_last_convolution_in_bf16_has_the_same_digits(shape: tuple[int, int, int, int]) -> None:
    values = operands(*shape, torch.bfloat16)
    for ours, expected in zip(with_gradients(convolve, values), with_gradients(channels_first, values), strict=True):
        assert torch.equal(ours, expected)
    with torch.inference_mode():
        assert torch.equal(convolve(*values), channels_first(*values))
        widened = [value.float() for value in values]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(convolve(*widened), channels_first(*widened))


@pytest.mark.parametrize(("slots", "dtype"), [(15, torch.bfloat16), (40, torch.float32), (40, torch.float64)])
def test_other_convolutions_are_channels_first(slots: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.delattr(F, "conv2d")
    values = operands(slots, 16, 5, 5, dtype)
    assert torch.equal(convolve(*values), channels_first(*values))


def test_format_of_products_is_that_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(low_precision, "uses_tiles", lambda dtype: asked.append(dtype) or False)
    values = operands(40, 16, 5, 5, torch.float32)
    convolve(*values)
    with torch.autocast("cpu", torch.bfloat16):
        convolve(*values)
    assert asked == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lengths", [LENGTHS, (6,), (4, 4), (40, 30, 33)])
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("few_sizes", [True, False])
def test_head_computes_the_same_as_on_the_padded_batch(
    training: bool, lengths: tuple[int, ...], with_mask: bool, few_sizes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_convolution, "needs_few_shapes", lambda values: few_sizes)
    features, mask = batch(lengths)
    real = mask if with_mask else torch.ones_like(mask)
    results = []
    for packed in (True, False):
        if not packed:
            monkeypatch.setattr(SeparatedRow, "from_mask", lambda *arguments: None)
        torch.manual_seed(0)
        head = SimpleConv(4, 8, 3).double().train(training)
        states = features.clone().requires_grad_()
        logits = head(states, mask if with_mask else None)
        assert logits.shape == (*mask.shape, 3)
        assert logits.is_contiguous()
        (logits * torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits))[real].sum().backward()
        gradients = [parameter.grad for parameter in head.parameters()]
        results.append((logits[real], states.grad, *gradients, *head.buffers()))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("training", [True, False])
def test_head_without_gradients_computes_the_same(training: bool) -> None:
    features, mask = batch()
    head = SimpleConv(4, 8, 3, dropout=0.5).double().train(training)
    torch.manual_seed(0)
    expected = head(features, mask)
    torch.manual_seed(0)
    with torch.inference_mode():
        assert torch.equal(head(features, mask), expected.detach())


def test_padding_has_no_logits() -> None:
    features, mask = batch()
    assert not SimpleConv(4, 8, 3).double()(features, mask)[~mask].any()


def test_nothing_is_computed_on_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    monkeypatch.setattr(heads, "convolve", lambda row, *others: rows.append(len(row)) or convolve(row, *others))
    features, mask = batch((50, 2, 3))
    SimpleConv(4, 8, 3).double()(features, mask)
    assert rows == [50 + 2 + 3 + 2 * 2] * 2  # and two zeros between proteins


def test_rows_have_few_sizes_where_each_has_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_convolution, "needs_few_shapes", lambda values: True)
    rows = []
    monkeypatch.setattr(heads, "convolve", lambda row, *others: rows.append(len(row)) or convolve(row, *others))
    for longest in range(33, 65):
        SimpleConv(4, 8, 3).double()(*batch((longest, 2, 3)))
    assert set(rows) == {*range(42, 65, 2), 68, 72, 76}  # for 42 to 73 slots


def test_under_autocast_both_convolutions_are_in_bf16() -> None:
    features, mask = batch(dtype=torch.float32)
    head = SimpleConv(4, 8, 3).eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features, mask)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits[mask].float(), head(features, mask)[mask], rtol=0.03, atol=0.03)


def test_padding_between_tokens_is_convolved_as_it_is() -> None:
    features, mask = batch((5, 5))
    mask[0, 2] = False
    assert SeparatedRow.from_mask(features, mask, 2) is None
    head = SimpleConv(4, 8, 3).double().eval()
    expected = head(features * mask.unsqueeze(-1), mask)
    torch.testing.assert_close(head(features, mask)[mask], expected[mask])


def test_batch_without_a_token() -> None:
    features, mask = batch((5,))
    assert SeparatedRow.from_mask(features, torch.zeros_like(mask), 2) is None
    assert SimpleConv(4, 8, 3).double().eval()(features, torch.zeros_like(mask)).isfinite().all()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_traced_head_has_no_lengths_of_its_example() -> None:
    features, mask = batch()
    head = SimpleConv(4, 8, 3).double().eval()
    traced = torch.jit.trace(head, (features, mask), check_trace=False)  # at padding, logits differ
    others, other_mask = batch((3, 9, 2))
    torch.testing.assert_close(traced(others, other_mask)[other_mask], head(others, other_mask)[other_mask])


def test_transformations_of_the_head() -> None:
    features, mask = batch()
    head = SimpleConv(4, 8, 3).double().eval()
    each = torch.func.vmap(lambda states, real: head(states[None], real[None])[0])(features, mask)
    torch.testing.assert_close(each[mask], head(features, mask)[mask])


def test_products_in_bf16_are_summed_in_fp32() -> None:
    generator = torch.Generator().manual_seed(0)
    row, weight, bias = (
        torch.randn(*shape, generator=generator).bfloat16() for shape in ((2000, 64), (1, 64, 9), (1,))
    )
    exact = convolve(row.double(), weight.double(), bias.double())
    products = torch.einsum("tc,ock->tok", row.float(), weight.float()).bfloat16()
    rounded = products.double()  # the error of rounding the products alone
    total = torch.zeros_like(exact)
    for offset in range(9):
        first, last = max(0, offset - 4), min(2000, 2000 + offset - 4)
        total[first - offset + 4 : last - offset + 4] += rounded[first:last, :, offset]
    expected = (total + bias.double()).bfloat16().double()
    error = (convolve(row, weight, bias).double() - exact).square().mean()
    assert error < 1.1 * (expected - exact).square().mean()
