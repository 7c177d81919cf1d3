"""bf16 and fp16 products on machines without their instructions, against torch's own slow ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.configs import ProteinBertConfig
from tape.models import low_precision
from tape.models.contact_heads import PairwiseContactPredictionHead, ResidualBlock
from tape.models.modeling_bert import ProteinBertForMaskedLM

FORMATS = (torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_precision, "is_fast", lambda device_type, dtype: False)


@pytest.mark.parametrize(("bf16", "fp32", "fast"), [(1.0, 3.0, True), (1.0, 1.1, False), (1.8, 1.0, False)])
def test_bf16_is_fast_where_it_takes_less_time(
    monkeypatch: pytest.MonkeyPatch, bf16: float, fp32: float, fast: bool
) -> None:
    """Processors with the same instructions differ."""
    monkeypatch.setattr(low_precision, "is_fast", lambda device_type, dtype: True)
    seconds = {torch.bfloat16: bf16, torch.float32: fp32}
    monkeypatch.setattr(low_precision, "_seconds", seconds.__getitem__)
    assert low_precision.fast_bf16("cpu") == fast
    assert low_precision.fast_bf16("cuda")


def test_bf16_without_instructions_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(low_precision, "_seconds")
    assert not low_precision.fast_bf16("cpu")


def test_the_quickest_product_of_the_format_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied, clock = [], iter([0.0, 5.0, 10.0, 12.0, *(20.0 + 4 * tick for tick in range(100))])
    monkeypatch.setattr(low_precision.F, "linear", lambda values, weight: multiplied.extend((values, weight)))
    monkeypatch.setattr(low_precision.time, "perf_counter", lambda: next(clock))
    assert low_precision._seconds(torch.bfloat16) == 2.0
    assert {tensor.dtype for tensor in multiplied} == {torch.bfloat16}
    assert len(multiplied) > 2 * 2


def _results(context: Any, product: Callable[..., Tensor], operands: list[Tensor]) -> list[Tensor]:
    """The product, and the gradients of all operands."""
    leaves = [operand.clone().requires_grad_() for operand in operands]
    with context:
        output = product(*leaves)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    (output.float() * weights).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(
    ("product", "shapes"),
    [
        (F.linear, [(3, 5, 24), (16, 24), (16,)]),
        (lambda a, b: a @ b, [(7, 24), (24, 9)]),
        (torch.matmul, [(2, 7, 24), (2, 24, 9)]),
        (torch.bmm, [(2, 7, 24), (2, 24, 9)]),
        (lambda a, b: torch.einsum("bqhd,bkhd->bhqk", a, b), [(2, 6, 3, 8), (2, 5, 3, 8)]),
        (lambda x, w: F.conv2d(x, w, padding=1), [(1, 4, 6, 6), (5, 4, 3, 3)]),
        (lambda x, w: F.conv1d(x, w, padding=1), [(2, 4, 9), (5, 4, 3)]),
        (F.scaled_dot_product_attention, [(2, 2, 9, 8)] * 3),
    ],
)
def test_products_are_those_of_the_format(dtype: torch.dtype, product: Any, shapes: list[tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(1)
    operands = [torch.randn(shape, generator=generator) for shape in shapes]
    rounded = _results(low_precision.autocast("cpu", dtype), product, operands)
    native = _results(torch.autocast("cpu", dtype=dtype), product, operands)
    exact = _results(torch.autocast("cpu", enabled=False), product, operands)
    unit = torch.finfo(dtype).eps
    for ours, theirs, reference in zip(rounded, native, exact, strict=True):
        assert ours.dtype == theirs.dtype
        size = float(reference.abs().max())
        # An order of sums, or one rounding more, apart; and as far from the unrounded numbers as the format is.
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=2 * unit, atol=2 * unit * size)
        assert float((ours.float() - reference).abs().max()) > 0.02 * unit * size


def test_products_are_fp32_ones_of_rounded_numbers() -> None:
    x, weight = torch.randn(6, 32), torch.randn(8, 32)
    with low_precision.autocast("cpu", torch.bfloat16):
        output = F.linear(x, weight)
        with torch.autocast("cpu", enabled=False):
            whole = F.linear(x, weight)
    torch.testing.assert_close(output, F.linear(x.bfloat16().float(), weight.bfloat16().float()).bfloat16())
    assert torch.equal(whole, F.linear(x, weight))  # an inner region without autocast is left alone


def test_large_numbers_overflow_in_fp16_only() -> None:
    large = torch.full((1, 4), 300.0)
    for dtype, finite in ((torch.float16, False), (torch.bfloat16, True)):
        with low_precision.autocast("cpu", dtype):
            assert bool(F.linear(large, large).isfinite().all()) == finite


def test_machines_with_the_instructions_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_precision, "is_fast", lambda device_type, dtype: True)
    with low_precision.autocast("cpu", torch.bfloat16):
        assert not torch.overrides._get_current_function_mode_stack()
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16


def test_model_and_recomputed_blocks_agree(
    tiny_config: Callable[..., ProteinBertConfig], proteins: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    torch.manual_seed(0)
    model = ProteinBertForMaskedLM(tiny_config())
    ids, mask = proteins(9, 14)
    gradients = []
    for context, recompute in (
        (torch.autocast("cpu", dtype=torch.bfloat16), False),
        (low_precision.autocast("cpu", torch.bfloat16), False),
        (low_precision.autocast("cpu", torch.bfloat16), True),
    ):
        model.bert.encoder.checkpoint_activations = recompute
        model.zero_grad()
        model.train()
        torch.manual_seed(3)
        with context:
            (loss, _), _ = model(ids, mask, targets=ids)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    native, rounded, recomputed = gradients
    assert torch.equal(rounded, recomputed)
    assert float((rounded - native).norm()) < 0.02 * float(native.norm())


def test_residual_blocks_of_contacts_add_in_the_format_of_autocast() -> None:
    head = PairwiseContactPredictionHead(8, num_blocks=2)
    inputs: list[torch.dtype] = []
    for block in (module for module in head.modules() if isinstance(module, ResidualBlock)):
        block.register_forward_hook(lambda module, args, output: inputs.extend((args[0].dtype, output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        head(torch.randn(1, 14, 8))
    assert inputs == [torch.bfloat16] * 4
    inputs.clear()
    head(torch.randn(1, 14, 8))
    assert inputs == [torch.float32] * 4


def test_products_are_computed_in_the_format_of_autocast() -> None:
    weight = torch.ones(2)
    assert low_precision.operand_dtype(weight) == torch.float32
    assert low_precision.operand_dtype(weight.to("meta", torch.float16)) == torch.float16  # has no autocast
    with torch.autocast("cpu", torch.bfloat16):
        assert low_precision.operand_dtype(weight) == torch.bfloat16
