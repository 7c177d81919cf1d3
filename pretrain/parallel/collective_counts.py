"""How many collectives this rank has started in each of its process groups, in numbers that ranks can compare.

Every process group counts its collectives, on gloo and on NCCL, when they start: of two members the one with the lower
count is the one that the other waits for. The count of the pipeline group is that of trace spans instead, since stages
send each other tensors in pairs, and not equally many each; those are counted one by one (pretrain.trace).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from pretrain import trace

from .context import DATA_AXIS, PIPELINE_AXIS, TENSOR_AXIS, ParallelContext
from .control_group import ControlGroup

Count = Callable[[], int]


def collective_counts(context: ParallelContext, control_group: ControlGroup) -> dict[str, Count]:
    """A counter for each process group that the main thread uses; names are the same on all members of a group."""
    groups: dict[str, Any] = {"world": dist.group.WORLD, "control": control_group.group}
    mesh = context.mesh
    for axis in (DATA_AXIS, TENSOR_AXIS):
        if mesh is not None and mesh[axis].size() > 1:
            group = mesh[axis].get_group()
            groups[f"{axis} of {_first(group)}"] = group
    staged = context.pipeline_group if context.dims.pipeline > 1 else None
    # A mesh axis of all ranks is the world group. Any, because torch's type stubs lack the method.
    counts: dict[str, Count] = {
        name: group._get_sequence_number_for_group for name, group in groups.items() if group is not staged
    }
    if staged is not None:
        counts[f"{PIPELINE_AXIS} of {_first(staged)}"] = lambda: trace.position().number
    return counts


def _first(group: dist.ProcessGroup) -> int:
    return min(dist.get_process_group_ranks(group))
