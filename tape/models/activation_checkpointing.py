"""Activation checkpointing (Chen et al. 2016): recompute activations in the backward pass instead of keeping them.

:func:`checkpointed` keeps only the arguments of one function, such as a transformer block or its attention core.
:func:`checkpointed_chain` divides a chain of n blocks into groups and keeps only the input of each group. While the
backward pass of a group runs, all activations of its blocks are in memory. A residual block has four of the size of its
input, so groups of sqrt(n / 4) blocks take the least memory. For 30 blocks that is 22 tensors instead of 120, at the
cost of a second forward pass.

Random numbers and autocast are the same in both forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .batch_norm import MaskedBatchNorm
from .low_precision import products_of_autocast

# The input of a residual block, the results of both convolutions, and the activation between them.
_TENSORS_PER_BLOCK = 4

_Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def checkpointed(function: Callable[..., Tensor], first: Tensor, *arguments: Any) -> Tensor:
    """Compute ``function(first, *arguments)`` and keep only its arguments for the backward pass."""
    contexts = partial(_contexts, first.device.type)
    result = checkpoint(function, first, *arguments, use_reentrant=False, context_fn=contexts)
    assert isinstance(result, Tensor)
    return result


def _contexts(device_type: str) -> _Contexts:
    """Contexts of the forward pass and of the recomputation."""
    return nullcontext(), products_of_autocast(device_type)


def checkpointed_chain(blocks: Sequence[nn.Module], states: Tensor, mask: Tensor | None) -> Tensor:
    """Compute ``for block in blocks: states = block(states, mask)`` and keep only the inputs of groups of blocks.

    Args:
        blocks: modules that map (states, mask) to states.
        states: input of the first block.
        mask: second argument of every block.
    """
    size = max(1, round(math.sqrt(len(blocks) / _TENSORS_PER_BLOCK)))
    for start in range(0, len(blocks), size):
        states = _checkpointed_group(blocks[start : start + size], states, mask)
    return states


def _checkpointed_group(blocks: Sequence[nn.Module], states: Tensor, mask: Tensor | None) -> Tensor:
    def run(inputs: Tensor) -> Tensor:
        for block in blocks:
            inputs = block(inputs, mask)
        return inputs

    def contexts() -> _Contexts:
        return nullcontext(), _recomputing(blocks, products_of_autocast(states.device.type))

    output: Tensor = checkpoint(run, states, use_reentrant=False, context_fn=contexts)
    return output


@contextmanager
def _recomputing(blocks: Sequence[nn.Module], products: AbstractContextManager[None]) -> Iterator[None]:
    """Keep batch norms from updating their running statistics a second time."""
    norms = [module for block in blocks for module in block.modules() if isinstance(module, MaskedBatchNorm)]
    before = [norm.is_recomputing for norm in norms]
    for norm in norms:
        norm.is_recomputing = True
    try:
        with products:
            yield
    finally:
        for norm, value in zip(norms, before, strict=True):
            norm.is_recomputing = value
