"""Parameters as the optimizer, the gradient buckets and checkpoints see them: this rank's shard of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from .context import DATA_AXIS, TENSOR_AXIS, ParallelContext

TIED_NAME = "bert.embeddings.word_embeddings.weight"
DECODER_NAME = "mlm.decoder.weight"  # the same matrix; the state dict has it under both names


@dataclass(frozen=True)
class LocalParameter:
    """A parameter and this rank's shard of it.

    Attributes:
        name: its name in the model's state dict.
        full: the parameter that the model computes with; a DTensor if it is sharded.
        local: this rank's shard, which shares memory with ``full`` and is what the optimizer updates.
        is_tensor_sharded: whether the tensor-parallel ranks hold shards of it, and not replicas.
        has_partial_gradient: whether each tensor-parallel rank computes its gradient from its own tokens only (sequence
            parallelism), so that the gradient needs an all-reduce over these ranks.
        is_tied_replica: whether it is the last pipeline stage's replica of the word embeddings.
    """

    name: str
    full: nn.Parameter
    local: nn.Parameter
    is_tensor_sharded: bool = False
    has_partial_gradient: bool = False
    is_tied_replica: bool = False

    def as_global(self, values: Tensor) -> Tensor:
        """Values of the same shape as ``local``, as a shard of a DTensor if the parameter is one."""
        if not isinstance(self.full, DTensor) or values.shape != self.local.shape:
            return values
        mesh, placements = self.full.device_mesh, self.full.placements
        shape, stride = self.full.shape, self.full.stride()
        return DTensor.from_local(values, mesh, placements, run_check=False, shape=shape, stride=stride)

    def gather(self, values: Tensor) -> Tensor:
        """The full values from the shards of all ranks, which call it together; the inverse of :meth:`shard_of`."""
        shard = self.as_global(values)
        return shard.full_tensor() if isinstance(shard, DTensor) else values

    def shard_of(self, full: Tensor) -> Tensor:
        """This rank's shard of full values; a view."""
        return _own_shard(full, self.full) if isinstance(self.full, DTensor) else full


def local_parameters(model: nn.Module, context: ParallelContext) -> list[LocalParameter]:
    """This rank's shards of all trained parameters of its pipeline stage; tied parameters appear once."""
    return [_local(name, parameter, context) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _local(name: str, parameter: nn.Parameter, context: ParallelContext) -> LocalParameter:
    local = parameter
    axes: tuple[str, ...] = ()
    sharded: set[str] = set()
    if isinstance(parameter, DTensor):
        local = nn.Parameter(parameter.to_local().detach())
        axes = parameter.device_mesh.mesh_dim_names or ()
        sharded = {axis for axis, place in zip(axes, parameter.placements, strict=True) if _is_shard(place)}
    return LocalParameter(
        name=TIED_NAME if name == DECODER_NAME else name,
        full=parameter,
        local=local,
        is_tensor_sharded=TENSOR_AXIS in sharded,
        has_partial_gradient=context.dims.sequence_parallel_enabled and TENSOR_AXIS not in axes,
        is_tied_replica=name == DECODER_NAME,
    )


def _is_shard(place: object) -> bool:
    return isinstance(place, Shard) or type(place).__name__ == "_StridedShard"  # FSDP's, no subclass of Shard


def copy_shard(parameter: Tensor, full: Tensor) -> None:
    """Copy this rank's shard of the ``full`` values into ``parameter``."""
    if not isinstance(parameter, DTensor):
        parameter.copy_(full)
        return
    local = parameter.to_local()
    local.copy_(_own_shard(full, parameter).to(local.device))


def _own_shard(full: Tensor, parameter: DTensor) -> Tensor:
    shard = full
    # Tensor parallelism sharded first, FSDP second: the order matters where both shard the same dimension.
    for axis in (TENSOR_AXIS, DATA_AXIS):
        shard = _chunk(shard, parameter, axis)
    return shard


def _chunk(values: Tensor, parameter: DTensor, axis: str) -> Tensor:
    mesh = parameter.device_mesh
    axes = mesh.mesh_dim_names or ()
    dimension = getattr(parameter.placements[axes.index(axis)], "dim", None) if axis in axes else None
    if dimension is None:
        return values
    chunks, rank = torch.chunk(values, mesh[axis].size(), dimension), mesh.get_local_rank(axis)
    return chunks[rank] if rank < len(chunks) else values.narrow(dimension, 0, 0)
