"""A block split over the tensor ranks: parameters are DTensors, what is computed with them are plain tensors.

Everything that deals with parameters (checkpoints, the optimizer, sharding) sees DTensors and where their parts lie.
But a block computes with its own parts, and says itself where ranks exchange, in operators of torch.distributed that
the compiler knows. Activations as DTensors, as torch's parallel styles hand them on, cost a small model a quarter of
its speed on a CPU, where every operation goes through Python first; and torch.compile (2.13) can't trace them while the
number of tokens differs from row to row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.nn import functional as F

from tape.models.attention import PackedLayout
from tape.models.modeling_bert import ProteinBertAttention, ProteinBertFFN, ProteinBertLayer


@dataclass(frozen=True)
class TensorGroup:
    """The ranks that share a block, as torch's operators name them.

    Attributes:
        name: of the process group.
        size: ranks in it.
        splits_tokens: sequence parallelism: outside the split regions each rank has its part of the tokens.
    """

    name: str
    size: int
    splits_tokens: bool

    def enter(self, hidden: Tensor) -> Tensor:
        """(1, T or own tokens, H), before matrices split by columns -> (1, T, H)."""
        entered: Tensor = (_GatherTokens if self.splits_tokens else _SumGradients).apply(hidden, self.name, self.size)
        return entered

    def leave(self, product: Tensor, bias: Tensor) -> Tensor:
        """(1, T, H), this rank's term of a product with a matrix split by rows -> (1, T or own tokens, H), biased."""
        if self.splits_tokens:
            part: Tensor = _SumToParts.apply(product, bias, self.name, self.size)
            return part
        total: Tensor = _Sum.apply(product, self.name, self.size)
        return total + bias


class SplitLinear(nn.Linear):
    """A product with this rank's part of the matrix."""

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, _part(self.weight), _part(self.bias))


class SummedLinear(nn.Linear):
    """A product with a matrix split by rows: the ranks' terms are summed, then comes the bias."""

    group: TensorGroup

    def forward(self, hidden: Tensor) -> Tensor:
        product = F.linear(hidden, _part(self.weight))
        return self.group.leave(product, _part(self.bias).to(product.dtype))


class SplitAttention(ProteinBertAttention):
    """Attention of which every rank computes some heads; one exchange for query, key and value."""

    group: TensorGroup

    def forward(
        self, hidden: Tensor, key_mask: Tensor | None, packing: PackedLayout | None, maps: list[Tensor] | None
    ) -> Tensor:
        return super().forward(self.group.enter(hidden), key_mask, packing, maps)


class SplitFFN(ProteinBertFFN):
    """An FFN of which every rank computes some columns."""

    group: TensorGroup

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(self.group.enter(hidden))


def split_block(block: ProteinBertLayer, mesh: DeviceMesh, splits_tokens: bool) -> None:
    """Split a block in place over the tensor ranks; its modules keep their names and parameters.

    Args:
        block: nobody has split it before.
        mesh: of the tensor ranks.
        splits_tokens: see :class:`TensorGroup`.
    """
    group = TensorGroup(mesh.get_group().group_name, mesh.size(), splits_tokens)
    attention, ffn = block.attention, block.mlp
    for linear in (attention.self.query, attention.self.key, attention.self.value, ffn.dense_h_4h):
        _distribute(linear, mesh, {"weight": Shard(0), "bias": Shard(0)})
        linear.__class__ = SplitLinear
    for linear in (attention.dense, ffn.dense_4h_h):
        _distribute(linear, mesh, {"weight": Shard(1), "bias": Replicate()})
        linear.__class__ = SummedLinear
    attention.__class__, ffn.__class__ = SplitAttention, SplitFFN
    for module in (attention, attention.dense, ffn, ffn.dense_4h_h):
        module.group = group  # type: ignore[assignment]


def _distribute(linear: nn.Linear, mesh: DeviceMesh, placements: dict[str, Placement]) -> None:
    for name, placement in placements.items():
        # src_data_rank=None: no rank sends its weights; every rank fills in its own part later
        part = distribute_tensor(getattr(linear, name), mesh, [placement], src_data_rank=None)
        linear.register_parameter(name, nn.Parameter(part))


def _part(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _sum(values: Tensor, name: str) -> Tensor:
    operators = torch.ops._c10d_functional
    result: Tensor = operators.wait_tensor(operators.all_reduce(values.contiguous(), "sum", name))
    return result


def _gather(part: Tensor, name: str, size: int) -> Tensor:
    """(1, t, H) of each rank -> (1, size x t, H)."""
    operators = torch.ops._c10d_functional
    gathered: Tensor = operators.wait_tensor(operators.all_gather_into_tensor(part[0].contiguous(), size, name))
    return gathered.unsqueeze(0)


def _scatter(values: Tensor, name: str, size: int) -> Tensor:
    """(1, size x t, H) -> this rank's (1, t, H) of the sum over the ranks."""
    operators = torch.ops._c10d_functional
    scattered = operators.reduce_scatter_tensor(values[0].contiguous(), "sum", size, name)
    part: Tensor = operators.wait_tensor(scattered)
    return part.unsqueeze(0)


class _SumGradients(torch.autograd.Function):
    """Nothing; in the backward pass the sum over the ranks."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, name: str, size: int) -> Tensor:
        ctx.name = name
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _sum(gradients[0], ctx.name), None, None


class _Sum(torch.autograd.Function):
    """The sum over the ranks; in the backward pass nothing."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, name: str, size: int) -> Tensor:
        return _sum(product, name)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


class _GatherTokens(torch.autograd.Function):
    """All ranks' tokens; in the backward pass their sums, each rank its own tokens."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, name: str, size: int) -> Tensor:
        ctx.name, ctx.size = name, size
        return _gather(hidden, name, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _scatter(gradients[0], ctx.name, ctx.size), None, None


class _SumToParts(torch.autograd.Function):
    """The sum over the ranks, each rank its own tokens, and the bias; in the backward pass all ranks' tokens.

    The gradient of the bias is that of all tokens, which the backward pass has anyway: it needs no sum of its own.
    """

    @staticmethod
    def forward(ctx: Any, product: Tensor, bias: Tensor, name: str, size: int) -> Tensor:
        ctx.name, ctx.size = name, size
        return _scatter(product, name, size) + bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        whole = _gather(gradients[0], ctx.name, ctx.size)
        return whole, whole.sum((0, 1)), None, None
