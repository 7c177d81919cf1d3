"""Everything about running on several processes: who they are, how the model is split, how gradients are summed.

With :mod:`pretrain.checkpointing` the only place that touches ``torch.distributed``. The model knows nothing of it: a
plan is applied from outside, and the training loop calls the few operations of :class:`Processes` and of
:class:`Gradients`.
"""

from .dims import ParallelDims
from .gradients import Gradients, LocalParameter, local_parameters
from .launch import Launch, read_launch
from .messages import MessageGroup, open_message_group
from .processes import BACKENDS, ParallelConfig, Processes, choose_backend, choose_device, open_processes
from .tensor import apply_tensor_parallel, fill_part
from .watchdog import LostRankError, watched

__all__ = [
    "BACKENDS",
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
    "fill_part",
    "local_parameters",
    "open_message_group",
    "open_processes",
    "read_launch",
    "watched",
]
