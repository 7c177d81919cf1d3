"""Dropout inside and outside of tensor-parallel regions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pretrain.parallel.tensor_parallel_rng import TensorParallelRNG
from tape.models.attention import AttentionCore, PackedLayout

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=ON_GPU)])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def core_of_rank(rank: int, device: str) -> AttentionCore:
    core = AttentionCore(0.5)
    TensorParallelRNG(torch.device(device), rank).attach(core)
    return core.train()


def inputs(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value; in bf16, for which packed rows have a kernel on CUDA."""
    query, key, value = torch.randn(3, 1, 12, 2, 8, generator=torch.Generator().manual_seed(1))
    return tuple(tensor.to(device, torch.bfloat16) for tensor in (query, key, value))  # type: ignore[return-value]


def attend(core: AttentionCore, device: str) -> Tensor:
    output: Tensor = core(*inputs(device), None, PackedLayout.from_lengths([4, 8], device))
    return output


def test_ranks_draw_different_dropout_inside_and_the_same_outside(device: str) -> None:
    inside, outside = [], []
    for rank in range(2):
        core = core_of_rank(rank, device)
        torch.manual_seed(7)
        inside.append([attend(core, device) for _ in range(2)])
        outside.append(torch.rand(5, device=device))
    assert not torch.equal(inside[0][0], inside[1][0])
    assert not torch.equal(inside[0][0], inside[0][1])  # nor do two layers share a mask
    assert torch.equal(outside[0], outside[1])


def test_a_rank_draws_the_same_dropout_from_the_same_seed(device: str) -> None:
    core = core_of_rank(1, device)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(attend(core, device))
    assert torch.equal(*results)


def test_evaluation_draws_no_random_numbers(device: str) -> None:
    core = core_of_rank(0, device).eval()
    torch.manual_seed(7)
    expected = torch.rand(3, device=device)
    torch.manual_seed(7)
    attend(core, device)
    assert torch.equal(torch.rand(3, device=device), expected)


def test_activation_checkpointing_draws_the_same_dropout(device: str) -> None:
    """Activation checkpointing restores the state at entry, from which the state inside is derived."""
    gradients = []
    for recompute in (False, True):
        core = core_of_rank(1, device)
        query, key, value = (tensor.requires_grad_() for tensor in inputs(device))
        layout = PackedLayout.from_lengths([4, 8], device)
        torch.manual_seed(7)
        if recompute:
            output = checkpoint(core, query, key, value, None, layout, use_reentrant=False)
        else:
            output = core(query, key, value, None, layout)
        torch.rand(3, device=device)  # the state has advanced before the backward pass
        (gradient,) = torch.autograd.grad(output.square().sum(), value)
        gradients.append(gradient)
    assert torch.equal(*gradients)
