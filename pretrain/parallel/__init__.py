"""Parallelism: tensor, sequence, pipeline and data parallel training, replicated or fully sharded.

:func:`parallelize_model` applies a layout (:class:`ParallelDims`) to a model whose code does not use process groups.
The training loop uses the collectives of :class:`ParallelContext` and :class:`GradientBuckets`, and runs micro-batches
through a :class:`ForwardBackward`.
"""

from .attention_backend import choose_attention_backend
from .context import ParallelConfig, ParallelContext, choose_backend, open_parallel_context
from .control_group import ControlGroup, open_control_group
from .fsdp import apply_fsdp
from .gradient_buckets import GradientBuckets
from .parallel_dims import ParallelDims
from .parallelize import parallelize_model
from .parameters import TIED_NAME, LocalParameter, local_parameters
from .pipeline import ForwardBackward, make_forward_backward, sum_of

__all__ = [
    "TIED_NAME",
    "ControlGroup",
    "ForwardBackward",
    "GradientBuckets",
    "LocalParameter",
    "ParallelConfig",
    "ParallelContext",
    "ParallelDims",
    "apply_fsdp",
    "choose_attention_backend",
    "choose_backend",
    "local_parameters",
    "make_forward_backward",
    "open_control_group",
    "open_parallel_context",
    "parallelize_model",
    "sum_of",
]
