"""A chain of blocks whose activations are computed again in the backward pass instead of kept.

The chain is cut into groups, each of which keeps its input alone. While a group's backward pass runs, all that its
blocks compute is there: four tensors of their input's size for a residual block, so that groups of sqrt(n / 4) blocks
take the least memory. For 30 blocks that is 22 kept tensors instead of 120, for one forward pass more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .heads import MaskedBatchNorm
from .low_precision import products_of_autocast

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
