"""Activation functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tape.models import activations
from tape.models.activations import TanhGELU, activation


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 4e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", [(1, 7, 64), (3,), (0, 4)])
def test_tanh_gelu_and_its_gradient(
    dtype: torch.dtype, tolerance: float, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "_BLOCK", 50)  # several blocks, the last one smaller
    generator = torch.Generator().manual_seed(0)
    values, gradient = (4 * torch.randn(2, *shape, generator=generator)).to(dtype)
    own, reference = values.clone().requires_grad_(), values.double().requires_grad_()
    output, expected = TanhGELU()(own), F.gelu(reference, approximate="tanh")
    output.backward(gradient)
    expected.backward(gradient.double())
    assert output.dtype == dtype
    assert own.grad is not None
    assert reference.grad is not None
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(own.grad.double(), reference.grad, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("default", [torch.device("meta"), torch.bfloat16], ids=str)
def test_tanh_gelu_does_not_depend_on_torch_s_defaults(
    default: torch.device | torch.dtype,
) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = TanhGELU()(values)
    if isinstance(default, torch.device):
        with default:
            output = TanhGELU()(values)
    else:
        torch.set_default_dtype(default)
        try:
            output = TanhGELU()(values)
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(output, expected)


def test_tanh_gelu_of_extreme_values() -> None:
    extreme = torch.tensor([-1e30, -1e4, 0.0, 1e4, 1e30, math.inf])
    assert TanhGELU()(extreme).tolist() == [0.0, 0.0, 0.0, 1e4, pytest.approx(1e30), math.inf]
    values = torch.tensor([-1e4, -20.0, 0.0, 20.0, 1e4], dtype=torch.bfloat16, requires_grad=True)
    output = TanhGELU()(values)
    output.sum().backward()
    assert output.tolist() == [0.0, 0.0, 0.0, 20.0, 9984.0]  # 1e4 in bf16
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_tanh_gelu_of_values_that_are_not_contiguous() -> None:
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).bfloat16().t()
    torch.testing.assert_close(TanhGELU()(values), F.gelu(values, approximate="tanh"), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("shape", [(0, 4), (7, 64), (3, 5, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tanh_gelu_without_gradients(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps nothing for a backward pass; in bf16, the values are those with one."""
    monkeypatch.setattr(activations, "_BLOCK", 50)  # several blocks, the last one smaller
    values = (4 * torch.randn(*shape, generator=torch.Generator().manual_seed(0)).transpose(0, 1)).to(dtype)
    before = values.clone()
    if dtype == torch.float32:
        expected, tolerance = F.gelu(before, approximate="tanh"), {"rtol": 2e-6, "atol": 1e-6}
    else:
        expected, tolerance = TanhGELU()(before.clone().requires_grad_()).detach(), {"rtol": 0, "atol": 0}
    monkeypatch.setattr(activations, "_compute", None)  # the pass with the derivative
    with torch.no_grad():
        output = TanhGELU()(values.requires_grad_())
    assert output.shape == values.shape
    assert not output.requires_grad
    torch.testing.assert_close(output, expected, **tolerance)
    assert torch.equal(values, before)
    torch.testing.assert_close(TanhGELU()(before), expected, **tolerance)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # by torch itself, for forward mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tanh_gelu_in_forward_mode_and_vmap(dtype: torch.dtype) -> None:
    values = torch.linspace(-3, 3, 13).to(dtype)
    expected = torch.func.jvp(lambda x: F.gelu(x, approximate="tanh"), (values,), (torch.ones_like(values),))
    torch.testing.assert_close(torch.func.jvp(TanhGELU(), (values,), (torch.ones_like(values),)), expected)
    torch.testing.assert_close(torch.func.vmap(TanhGELU())(values), expected[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gelu", F.gelu), ("gelu_tanh", nn.GELU("tanh")), ("relu", F.relu), ("swish", F.silu)],
)
def test_activations_by_name(name: str, expected: nn.Module) -> None:
    values = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(activation(name)(values), expected(values))
