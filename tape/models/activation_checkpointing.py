"""A function whose activations are computed again in the backward pass instead of being kept (Chen et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .heads import MaskedBatchNorm
from .low_precision import products_of_autocast


def recomputed(function: Callable[..., Tensor], first: Tensor, *arguments: Any) -> Tensor:
    """``function(first, *arguments)``, of which only the arguments are kept for the backward pass.

    Random numbers and the precision of products are the same both times.
    """
    contexts = partial(_contexts, first.device.type)
    result = checkpoint(function, first, *arguments, use_reentrant=False, context_fn=contexts)
    assert isinstance(result, Tensor)
    return result


def _contexts(device_type: str) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Of the forward pass, and of the second time."""
    return nullcontext(), products_of_autocast(device_type)


# input, both convolutions' results, and what is between them
_KEPT_BY_A_BLOCK = 4


@contextmanager
def _recomputing(blocks: Sequence[nn.Module], products: AbstractContextManager[None]) -> Iterator[None]:
    """Batch norms leave their running statistics alone: the first pass has updated them."""
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


def _recomputed(blocks: Sequence[nn.Module], states: Tensor, mask: Tensor | None) -> Tensor:
    def run(inputs: Tensor) -> Tensor:
        for block in blocks:
            inputs = block(inputs, mask)
        return inputs

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _recomputing(blocks, products_of_autocast(states.device.type))

    output: Tensor = checkpoint(run, states, use_reentrant=False, context_fn=contexts)
    return output


def recomputed_chain(blocks: Sequence[nn.Module], states: Tensor, mask: Tensor | None) -> Tensor:
    """``for block in blocks: states = block(states, mask)``, with few activations kept.

    Args:
        blocks: modules that map (states, mask) to states.
        states: of the first block.
        mask: passed to every block.
    """
    size = max(1, round(math.sqrt(len(blocks) / _KEPT_BY_A_BLOCK)))
    for start in range(0, len(blocks), size):
        states = _recomputed(blocks[start : start + size], states, mask)
    return states
