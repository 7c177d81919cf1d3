"""Everything about running on several processes: who they are, how the model is split, how gradients are summed.

With :mod:`pretrain.checkpointing` the only place that touches ``torch.distributed``. The model knows nothing of it: it
is split from outside, and the training loop calls the few operations of :class:`Processes` and of
:class:`Gradients`.
"""

from .blocks import RECOMPUTATIONS, compile_blocks, recompute
from .dims import ParallelDims
from .gradients import Gradients
from .launch import Launch, read_launch
from .messages import MessageGroup, open_message_group
from .parameters import TIED_NAME, LocalParameter, local_parameters
from .pipeline import PIPELINE_SCHEDULES, Execution, make_execution, sum_of
from .processes import BACKENDS, ParallelConfig, Processes, choose_backend, choose_device, open_processes
from .sharding import fill_part, shard_over_data
from .stages import keep_stage, own_blocks
from .tensor import apply_tensor_parallel
from .watchdog import LostRankError, watched

__all__ = [
    "BACKENDS",
    "PIPELINE_SCHEDULES",
    "RECOMPUTATIONS",
    "TIED_NAME",
    "Execution",
    "Gradients",
    "Launch",
    "LocalParameter",
    "LostRankError",
    "MessageGroup",
    "ParallelConfig",
    "ParallelDims",
    "Processes",
    "apply_tensor_parallel",
    "choose_backend",
    "choose_device",
    "compile_blocks",
    "fill_part",
    "keep_stage",
    "local_parameters",
    "make_execution",
    "open_message_group",
    "open_processes",
    "own_blocks",
    "read_launch",
    "recompute",
    "shard_over_data",
    "sum_of",
    "watched",
]
