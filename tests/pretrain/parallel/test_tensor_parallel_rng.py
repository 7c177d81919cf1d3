"""Dropout inside and outside of tensor-parallel regions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pretrain.parallel.tensor_parallel_rng import TensorParallelRNG
from tape.models.attention import AttentionCore


def core_of_rank(rank: int) -> AttentionCore:
    core = AttentionCore(0.5)
    TensorParallelRNG(torch.device("cpu"), rank).attach(core)
    return core.train()


def attend(core: AttentionCore) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    query, key, value = torch.randn(3, 1, 8, 2, 4, generator=generator)
    return core(query, key, value, None, None)


def test_ranks_draw_different_dropout_inside_and_the_same_outside() -> None:
    inside, outside = [], []
    for rank in range(2):
        core = core_of_rank(rank)
        torch.manual_seed(7)
        inside.append([attend(core) for _ in range(2)])
        outside.append(torch.rand(5))
    assert not torch.equal(inside[0][0], inside[1][0])
    assert not torch.equal(inside[0][0], inside[0][1])  # nor do two layers share a mask
    assert torch.equal(outside[0], outside[1])


def test_a_rank_draws_the_same_dropout_from_the_same_seed() -> None:
    core = core_of_rank(1)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(attend(core))
    assert torch.equal(*results)


def test_evaluation_draws_no_random_numbers() -> None:
    core = core_of_rank(0).eval()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    attend(core)
    assert torch.equal(torch.rand(3), expected)


def test_activation_checkpointing_draws_the_same_dropout() -> None:
    """Activation checkpointing restores the state at entry, from which the state inside is derived."""
    gradients = []
    for recompute in (False, True):
        core = core_of_rank(1)
        generator = torch.Generator().manual_seed(1)
        query, key, value = torch.randn(3, 1, 8, 2, 4, generator=generator).requires_grad_()
        torch.manual_seed(7)
        if recompute:
            output = checkpoint(core, query, key, value, None, None, use_reentrant=False)
        else:
            output = core(query, key, value, None, None)
        torch.rand(3)  # the state has advanced before the backward pass
        (gradient,) = torch.autograd.grad(output.square().sum(), value)
        gradients.append(gradient)
    assert torch.equal(*gradients)
