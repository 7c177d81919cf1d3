"""Whether a model is being captured as a graph instead of computed."""

from __future__ import annotations

import torch


def is_building_graph() -> bool:
    """True under ``torch.compile``, ``torch.export`` and ``torch.jit.trace``.

    Code that depends on the values or the size of its inputs, and is only a faster form of an operation of torch, must
    not run then: a tracer records the choices made for the example inputs, also for all others.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
