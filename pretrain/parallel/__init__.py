"""Everything about running on several processes: who they are, how the model is split, how gradients are summed.

With :mod:`pretrain.checkpointing` the only place that touches ``torch.distributed``. The model knows nothing of it: it
is split from outside, and the training loop calls the few operations of :class:`ParallelContext` and of
:class:`GradientBuckets`.
"""

from .context import BACKENDS, ParallelConfig, ParallelContext, choose_backend, open_parallel_context
from .control_group import ControlGroup, open_control_group
from .fsdp import apply_fsdp, fill_part
from .gradient_buckets import GradientBuckets
from .parallel_dims import ParallelDims
from .parallelize import RECOMPUTATIONS, compile_blocks, recompute
from .parameters import TIED_NAME, LocalParameter, local_parameters
from .pipeline import PIPELINE_SCHEDULES, ForwardBackward, make_forward_backward, sum_of
from .pipeline_split import keep_stage, own_blocks
from .tensor_parallel import apply_tensor_parallel

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
    "apply_tensor_parallel",
    "choose_backend",
    "compile_blocks",
    "fill_part",
    "keep_stage",
    "local_parameters",
    "make_forward_backward",
    "open_control_group",
    "open_parallel_context",
    "own_blocks",
    "recompute",
    "sum_of",
]
