"""Sharded data parallelism (FSDP2; Zhao et al. 2023): copies of the model share its weights out among themselves.

Each block is gathered from the shards just before it computes and let go of afterwards; its gradient is summed over the
copies in fp32 and every rank keeps the part that belongs to its shard, and the optimizer state of it. Composes with
tensor parallelism: a split matrix is sharded further, on the two-dimensional mesh.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from .context import DATA_AXIS, TENSOR_AXIS, ParallelContext


def apply_fsdp(module: nn.Module, processes: ParallelContext) -> None:
    """Shard a module's parameters in place, those of blocks sharded before excepted; no-op unless asked for."""
    if not processes.dims.shards_data:
        return
    fully_shard(module, mesh=processes.data_mesh)
    assert isinstance(module, FSDPModule)
    # The loss is divided by the predictions of the whole batch: a sum over the copies, not their mean.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def settle_shards(root: nn.Module) -> None:
    """Let FSDP lay out the memory of all shards now, which it would otherwise do, and move them, at the first step."""
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()


@contextmanager
def no_gradient_sync(root: nn.Module, active: bool) -> Iterator[None]:
    """Around a micro-batch that isn't the step's last: sharded gradients are collected on this rank, unsummed."""
    if not (active and isinstance(root, FSDPModule)):
        yield
        return
    root.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        root.set_requires_gradient_sync(True)


def fill_part(parameter: Tensor, full: Tensor, processes: ParallelContext) -> None:
    """Fill in the part of ``parameter`` that this rank holds, out of the ``full`` values."""
    if not isinstance(parameter, DTensor):
        parameter.copy_(full)
        return
    part = full
    # In the order in which they were split: by tensor ranks first, then by data ranks. On one dimension it matters.
    for axis, rank in ((TENSOR_AXIS, processes.tensor_rank), (DATA_AXIS, processes.data_rank)):
        part = _part(part, parameter, axis, rank)
    local = parameter.to_local()
    local.copy_(part.to(local.device))


def _part(values: Tensor, parameter: DTensor, axis: str, rank: int) -> Tensor:
    axes = parameter.device_mesh.mesh_dim_names or ()
    dimension = getattr(parameter.placements[axes.index(axis)], "dim", None) if axis in axes else None
    if dimension is None:
        return values
    pieces = torch.chunk(values, parameter.device_mesh[axis].size(), dimension)
    return pieces[rank] if rank < len(pieces) else values.narrow(dimension, 0, 0)
