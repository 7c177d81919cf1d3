"""Dropout on a CPU."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tape.models.dropout import Dropout, dropout, dropout_add


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_has_its_rate_and_keeps_the_mean(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(1001, 1003, dtype=dtype)
    output = dropout(values, rate).double()
    dropped = float((output == 0).double().mean())
    standard_error = math.sqrt(rate * (1 - rate) / values.numel())
    assert dropped == pytest.approx(rate, abs=5 * standard_error + 1 / 65536)
    kept = output[output != 0]
    assert output.dtype == torch.float64
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=5e-3, atol=0)


def test_neighboring_elements_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.3) == 0).double()
    for distance in (1, 2, 3, 4, 5, 8):
        both = float((dropped[:-distance] * dropped[distance:]).mean())
        assert both == pytest.approx(0.09, abs=0.003)


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5])
def test_any_number_of_elements(number: int) -> None:
    assert dropout(torch.ones(number), 0.5).shape == (number,)


def test_the_gradient_passes_where_values_were_kept() -> None:
    torch.manual_seed(0)
    values = torch.randn(50, 7, requires_grad=True)
    output = dropout(values, 0.4)
    output.backward(torch.full_like(output, 3.0))
    assert values.grad is not None
    torch.testing.assert_close(output, values * values.grad / 3)
    assert set((values.grad == 0).flatten().tolist()) == {False, True}


def test_masks_follow_torch_s_generator() -> None:
    def draw() -> torch.Tensor:
        return dropout(torch.ones(200), 0.5)

    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert torch.equal(draw(), first)
    assert not torch.equal(first, second)


def test_masks_do_not_depend_on_the_default_device() -> None:
    values = torch.ones(1000)
    torch.manual_seed(5)
    expected = dropout(values, 0.5)
    torch.manual_seed(5)
    with torch.device("meta"):
        output = dropout(values, 0.5)
    assert torch.equal(output, expected)


def test_activation_checkpointing_draws_the_same_mask_again() -> None:
    torch.manual_seed(0)
    values = torch.randn(300, requires_grad=True)
    output = checkpoint(lambda inputs: dropout(inputs, 0.5) ** 2, values, use_reentrant=False)
    output.sum().backward()
    assert values.grad is not None
    # of (2 x)^2 at kept elements
    torch.testing.assert_close(values.grad, torch.where(output == 0, 0.0, 8 * values.detach()))


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_no_and_all_elements_are_dropped(rate: float, expected: float) -> None:
    assert (dropout(torch.ones(5), rate) == expected).all()


def test_the_module_does_nothing_in_evaluation() -> None:
    module = Dropout(0.9)
    values = torch.ones(100)
    assert not torch.equal(module(values), values)
    assert torch.equal(module.eval()(values), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_with_a_residual_connection_is_their_sum(dtype: torch.dtype) -> None:
    residual, values = torch.randn(40, 30, requires_grad=True), torch.randn(40, 30).to(dtype).requires_grad_()
    weights = torch.randn(40, 30)
    results = []
    for function in (lambda: residual + dropout(values, 0.25), lambda: dropout_add(residual, values, 0.25)):
        torch.manual_seed(7)
        output = function()
        results.append((output.detach(), *torch.autograd.grad(output, (residual, values), weights)))
    for expected, found in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        tolerance = {torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype]
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_a_residual_connection_keeps_torch_s_type_promotion() -> None:
    residual, values = torch.ones(3, dtype=torch.bfloat16), torch.ones(3)
    assert dropout_add(residual, values, 0.5).dtype == torch.float32


def test_the_module_adds_everything_in_evaluation() -> None:
    residual, values = torch.randn(5), torch.randn(5)
    assert torch.equal(Dropout(0.9).eval().add(residual, values), residual + values)
