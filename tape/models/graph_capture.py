"""Whether a model is captured as a graph, or transformed, instead of computed."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def is_captured() -> bool:
    """True under ``torch.compile``, ``torch.export``, ``torch.jit.trace`` and ``torch.func``, and in forward mode.

    Code that depends on the values or the size of its inputs, or whose derivative is written by hand, and is only a
    faster form of operations of torch, must not run then: a tracer records the choices made for the example inputs,
    also for all others, and transformations of ``torch.func`` and forward-mode derivatives know torch's operations.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0
    )
