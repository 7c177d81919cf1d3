"""Tensor parallelism of Megatron-LM (Shoeybi et al. 2019, section 3): a plan of which modules are sharded, and how.

In every transformer block the query, key and value projections and the first FFN matrix are column parallel: each rank
holds some of the attention heads and some of the FFN's hidden units. The attention's output projection and the second
FFN matrix are row parallel: each rank computes one term of their output, and an all-reduce adds the terms. The forward
pass needs one all-reduce after attention and one after the FFN, and the backward pass needs the same two where it
leaves those regions.

Everything else is replicated:

- layer norms, and the biases of row-parallel matrices (added after the all-reduce), because they act on the residual
  stream, which is complete on every rank;
- the embeddings and the language-model head, because a protein vocabulary has 30 rows. Sharding a 30 x H matrix (for
  which Megatron-LM pads 31 rows to 128 per rank) saves no memory worth mentioning and costs two more collectives and a
  vocabulary-parallel cross entropy.

With sequence parallelism (Korthikanti et al. 2022) the residual stream is sharded by tokens outside these regions. An
all-gather of the tokens replaces the copy in front of the column-parallel matrices, and a reduce-scatter replaces the
all-reduce behind the row-parallel ones. The embeddings, layer norms, hidden dropout and head then process only this
rank's tokens, and the gradients of their parameters are all-reduced over the tensor-parallel ranks once per step
(gradient_buckets.py).

Parameters are DTensors, so that checkpoints, FSDP and the optimizer know each rank's shard. Activations are plain
tensors, and the collectives are written out as functional operators that torch.compile can trace. torch's own
ColwiseParallel and RowwiseParallel make DTensors of the activations. That took a quarter of a small model's speed on a
CPU, where every DTensor operation is dispatched through Python, and torch.compile (2.13) can't trace DTensors when the
number of tokens changes from row to row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module
from torch.nn import functional as F

from tape.models.modeling_bert import ProteinBertLayer


def tensor_parallel_plan(sequence_parallel: bool) -> dict[str, ParallelStyle]:
    """The parallel style of each module in a transformer block; modules that are not named here are replicated."""
    return {
        "attention": RegionInput(sequence_parallel),
        "attention.self.query": ColumnParallel(),
        "attention.self.key": ColumnParallel(),
        "attention.self.value": ColumnParallel(),
        "attention.dense": RowParallel(sequence_parallel),
        "mlp": RegionInput(sequence_parallel),
        "mlp.dense_h_4h": ColumnParallel(),
        "mlp.dense_4h_h": RowParallel(sequence_parallel),
    }


def apply_tensor_parallel(block: ProteinBertLayer, mesh: DeviceMesh, sequence_parallel: bool) -> None:
    """Shard a transformer block over the tensor-parallel ranks, in place; names in the state dict stay.

    Args:
        block: a block that has not been sharded yet.
        mesh: one-dimensional mesh of the tensor-parallel ranks.
        sequence_parallel: whether the block's input and output are sharded by tokens.
    """
    # src_data_rank=None: weights are not scattered from rank 0; each rank initializes or loads its own shard later
    parallelize_module(block, mesh, tensor_parallel_plan(sequence_parallel), src_data_rank=None)


class RegionInput(ParallelStyle):
    """Prepares the input of a module that begins with column-parallel matrices.

    One collective then serves query, key and value together.
    """

    def __init__(self, sequence_parallel: bool) -> None:
        self.sequence_parallel = sequence_parallel

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        group = TensorParallelGroup.from_mesh(device_mesh, self.sequence_parallel)
        module.register_forward_pre_hook(lambda module, inputs: (group.enter_region(inputs[0]), *inputs[1:]))
        return module


class ColumnParallel(ParallelStyle):
    """Shards an ``nn.Linear`` by its output features; its input must have been prepared by :class:`RegionInput`."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        _distribute(module, device_mesh, {"weight": Shard(0), "bias": Shard(0)}, self.src_data_rank)
        module.__class__ = ColumnParallelLinear
        return module


class RowParallel(ParallelStyle):
    """Shards an ``nn.Linear`` by its input features, and adds up the ranks' terms of the output."""

    def __init__(self, sequence_parallel: bool) -> None:
        self.sequence_parallel = sequence_parallel

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        _distribute(module, device_mesh, {"weight": Shard(1), "bias": Replicate()}, self.src_data_rank)
        module.__class__ = RowParallelLinear
        module.group = TensorParallelGroup.from_mesh(device_mesh, self.sequence_parallel)  # type: ignore[assignment]
        return module


def _distribute(module: nn.Module, mesh: DeviceMesh, placements: dict[str, Placement], source: int | None) -> None:
    for name, placement in placements.items():
        shard = distribute_tensor(getattr(module, name), mesh, [placement], src_data_rank=source)
        module.register_parameter(name, nn.Parameter(shard))


class ColumnParallelLinear(nn.Linear):
    """y_i = x A_i + b_i on rank i, for a matrix A = [A_1 ... A_n] that is sharded by output features."""

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, _local(self.weight), _local(self.bias))


class RowParallelLinear(nn.Linear):
    """y = x_1 A_1 + ... + x_n A_n + b, each term computed by one rank; x and A are sharded by input features."""

    group: TensorParallelGroup

    def forward(self, hidden: Tensor) -> Tensor:
        product = F.linear(hidden, _local(self.weight))
        return self.group.leave_region(product, _local(self.bias).to(product.dtype))


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


@dataclass(frozen=True)
class TensorParallelGroup:
    """The tensor-parallel ranks, in the form in which functional collectives take them.

    Attributes:
        name: name of the process group.
        size: number of ranks.
        sequence_parallel: whether the residual stream is sharded by tokens outside the tensor-parallel regions.
    """

    name: str
    size: int
    sequence_parallel: bool

    @classmethod
    def from_mesh(cls, mesh: DeviceMesh, sequence_parallel: bool) -> TensorParallelGroup:
        return cls(mesh.get_group().group_name, mesh.size(), sequence_parallel)

    def enter_region(self, hidden: Tensor) -> Tensor:
        """Prepare the input of column-parallel matrices: (1, T or own tokens, H) -> (1, T, H)."""
        if self.sequence_parallel:
            gathered: Tensor = _GatherFromSequenceParallelRegion.apply(hidden, self.name, self.size)
            return gathered
        copied: Tensor = _CopyToTensorParallelRegion.apply(hidden, self.name)
        return copied

    def leave_region(self, product: Tensor, bias: Tensor) -> Tensor:
        """Add up the ranks' terms (1, T, H) of a row-parallel product, and the bias -> (1, T or own tokens, H)."""
        if self.sequence_parallel:
            scattered: Tensor = _ReduceScatterToSequenceParallelRegion.apply(product, bias, self.name, self.size)
            return scattered
        reduced: Tensor = _ReduceFromTensorParallelRegion.apply(product, self.name)
        return reduced + bias


class _CopyToTensorParallelRegion(torch.autograd.Function):
    """Identity in the forward pass, all-reduce in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, name: str) -> Tensor:
        ctx.name = name
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _all_reduce(gradients[0], ctx.name), None


class _ReduceFromTensorParallelRegion(torch.autograd.Function):
    """All-reduce in the forward pass, identity in the backward pass."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, name: str) -> Tensor:
        return _all_reduce(product, name)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _GatherFromSequenceParallelRegion(torch.autograd.Function):
    """All-gather of the tokens in the forward pass, reduce-scatter in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, name: str, size: int) -> Tensor:
        ctx.name, ctx.size = name, size
        return _all_gather(hidden, name, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _reduce_scatter(gradients[0], ctx.name, ctx.size), None, None


class _ReduceScatterToSequenceParallelRegion(torch.autograd.Function):
    """Reduce-scatter of the tokens, then the bias, in the forward pass; all-gather in the backward pass.

    The bias is added here because its gradient is a sum over the tokens of all ranks, which the backward pass gathers
    anyway. Outside it would need an all-reduce of its own.
    """

    @staticmethod
    def forward(ctx: Any, product: Tensor, bias: Tensor, name: str, size: int) -> Tensor:
        ctx.name, ctx.size = name, size
        return _reduce_scatter(product, name, size) + bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gathered = _all_gather(gradients[0], ctx.name, ctx.size)
        return gathered, gathered.sum((0, 1)), None, None


# The operators behind torch.distributed._functional_collectives, which Dynamo puts into the graph as they are.


def _all_reduce(values: Tensor, name: str) -> Tensor:
    operators = torch.ops._c10d_functional
    result: Tensor = operators.wait_tensor(operators.all_reduce(values.contiguous(), "sum", name))
    return result


def _all_gather(shard: Tensor, name: str, size: int) -> Tensor:
    """(1, t, H) on each rank -> (1, size x t, H)."""
    operators = torch.ops._c10d_functional
    gathered: Tensor = operators.wait_tensor(operators.all_gather_into_tensor(shard[0].contiguous(), size, name))
    return gathered.unsqueeze(0)


def _reduce_scatter(values: Tensor, name: str, size: int) -> Tensor:
    """(1, size x t, H) on each rank -> this rank's tokens (1, t, H) of the sum over the ranks."""
    operators = torch.ops._c10d_functional
    scattered = operators.reduce_scatter_tensor(values[0].contiguous(), "sum", size, name)
    shard: Tensor = operators.wait_tensor(scattered)
    return shard.unsqueeze(0)
