"""A function whose activations are computed again in the backward pass instead of being kept (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

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
