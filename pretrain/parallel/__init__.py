"""Everything about running on several processes: who they are, how the model is split, how gradients are summed.

With :mod:`pretrain.checkpointing` the only place that touches ``torch.distributed``. The model knows nothing of it: it
is split from outside, and the training loop calls the few operations of :class:`ParallelContext` and of
:class:`GradientBuckets`.
"""

from .context import BACKENDS, ParallelConfig, ParallelContext, choose_backend, open_parallel_context
from .control_group import ControlGroup, open_control_group
from .fsdp import apply_fsdp
from .gradient_buckets import GradientBuckets
from .parallel_dims import ParallelDims
from .parallelize import RECOMPUTATIONS, parallelize_model
from .parameters import TIED_NAME, LocalParameter, local_parameters
from .pipeline import PIPELINE_SCHEDULES, ForwardBackward, make_forward_backward, sum_of

__all__ = [
    "BACKENDS",
    "PIPELINE_SCHEDULES",
    "RECOMPUTATIONS",
    "TIED_NAME",
    "ControlGroup",
    "ForwardBackward",
    "GradientBuckets",
    "LocalParameter",
    "ParallelConfig",
    "ParallelContext",
    "ParallelDims",
    "apply_fsdp",
    "choose_backend",
    "local_parameters",
    "make_forward_backward",
    "open_control_group",
    "open_parallel_context",
    "parallelize_model",
    "sum_of",
]
