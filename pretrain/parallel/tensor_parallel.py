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

from tape.models.attention import AttentionCore, PackedLayout
from tape.models.modeling_bert import ProteinBertAttention, ProteinBertFFN, ProteinBertForMaskedLM, ProteinBertLayer

from .context import ParallelContext
from .pipeline_split import own_blocks


@dataclass(frozen=True)
class TensorParallelGroup:
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
        entered: Tensor = (
            _GatherFromSequenceParallelRegion if self.splits_tokens else _CopyToTensorParallelRegion
        ).apply(hidden, self.name, self.size)
        return entered

    def leave(self, product: Tensor, bias: Tensor) -> Tensor:
        """(1, T, H), this rank's term of a product with a matrix split by rows -> (1, T or own tokens, H), biased."""
        if self.splits_tokens:
            part: Tensor = _ReduceScatterToSequenceParallelRegion.apply(product, bias, self.name, self.size)
            return part
        total: Tensor = _ReduceFromTensorParallelRegion.apply(product, self.name, self.size)
        return total + bias


class ColumnParallelLinear(nn.Linear):
    """A product with this rank's part of the matrix."""

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, _part(self.weight), _part(self.bias))


class RowParallelLinear(nn.Linear):
    """A product with a matrix split by rows: the ranks' terms are summed, then comes the bias."""

    group: TensorParallelGroup

    def forward(self, hidden: Tensor) -> Tensor:
        product = F.linear(hidden, _part(self.weight))
        return self.group.leave(product, _part(self.bias).to(product.dtype))


class TensorParallelAttention(ProteinBertAttention):
    """Attention of which every rank computes some heads; one exchange for query, key and value."""

    group: TensorParallelGroup

    def forward(
        self, hidden: Tensor, key_mask: Tensor | None, packing: PackedLayout | None, maps: list[Tensor] | None
    ) -> Tensor:
        return super().forward(self.group.enter(hidden), key_mask, packing, maps)


class TensorParallelFFN(ProteinBertFFN):
    """An FFN of which every rank computes some columns."""

    group: TensorParallelGroup

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(self.group.enter(hidden))


def split_block(block: ProteinBertLayer, mesh: DeviceMesh, splits_tokens: bool) -> None:
    """Split a block in place over the tensor ranks; its modules keep their names and parameters.

    Args:
        block: nobody has split it before.
        mesh: of the tensor ranks.
        splits_tokens: see :class:`TensorParallelGroup`.
    """
    group = TensorParallelGroup(mesh.get_group().group_name, mesh.size(), splits_tokens)
    attention, ffn = block.attention, block.mlp
    for linear in (attention.self.query, attention.self.key, attention.self.value, ffn.dense_h_4h):
        _distribute(linear, mesh, {"weight": Shard(0), "bias": Shard(0)})
        linear.__class__ = ColumnParallelLinear
    for linear in (attention.dense, ffn.dense_4h_h):
        _distribute(linear, mesh, {"weight": Shard(1), "bias": Replicate()})
        linear.__class__ = RowParallelLinear
    attention.__class__, ffn.__class__ = TensorParallelAttention, TensorParallelFFN
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


class _CopyToTensorParallelRegion(torch.autograd.Function):
    """Nothing; in the backward pass the sum over the ranks."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, name: str, size: int) -> Tensor:
        ctx.name = name
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _sum(gradients[0], ctx.name), None, None


class _ReduceFromTensorParallelRegion(torch.autograd.Function):
    """The sum over the ranks; in the backward pass nothing."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, name: str, size: int) -> Tensor:
        return _sum(product, name)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


class _GatherFromSequenceParallelRegion(torch.autograd.Function):
    """All ranks' tokens; in the backward pass their sums, each rank its own tokens."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, name: str, size: int) -> Tensor:
        ctx.name, ctx.size = name, size
        return _gather(hidden, name, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _scatter(gradients[0], ctx.name, ctx.size), None, None


class _ReduceScatterToSequenceParallelRegion(torch.autograd.Function):
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


_RANK_STRIDE = 0x9E3779B97F4A7C15  # odd 64-bit constant that spreads rank numbers over seeds (golden ratio)
_SEED_MASK = (1 << 62) - 1


def apply_tensor_parallel(model: ProteinBertForMaskedLM, processes: ParallelContext) -> None:
    """Split the model in place over the tensor ranks, and give each rank a dropout of its own inside the split.

    The dropout hooks are set at every layout, so that the streams outside the split are the same at all of them.

    Args:
        model: whole.
        processes: the layout.
    """
    if processes.dims.tensor > 1:
        for block in own_blocks(model):
            split_block(block, processes.tensor_mesh, processes.dims.splits_tokens)
    for module in model.modules():
        if isinstance(module, AttentionCore) and module.dropout > 0:
            _TensorParallelRNG(processes.device, processes.tensor_rank).attach(module)


class _TensorParallelRNG:
    """A random stream of its own for the time that a module runs, derived from the common one.

    Nothing is remembered between calls: the state at entry decides, so that recomputation in the backward pass, which
    restores that state, draws the same numbers again.
    """

    def __init__(self, device: torch.device, tensor_rank: int) -> None:
        self.device = device
        self.offset = (tensor_rank + 1) * _RANK_STRIDE
        self._outside: list[Tensor] = []

    def attach(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self._enter)
        module.register_forward_hook(self._leave, always_call=True)

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if not module.training:
            return
        if self.device.type == "cuda":
            self._enter_cuda()
            return
        seed = int(torch.randint(_SEED_MASK, ()))  # moves the common stream on, the same on all ranks
        self._outside.append(torch.get_rng_state())
        torch.default_generator.manual_seed((seed + self.offset) & _SEED_MASK)

    def _enter_cuda(self) -> None:
        # A Philox state is (seed, offset): another seed is another stream, and reading it costs no synchronisation.
        state = torch.cuda.get_rng_state(self.device)
        self._outside.append(state)
        inside = state.clone()
        seed = inside[:8].view(torch.int64)
        seed.copy_(torch.tensor([(int(seed) + self.offset) & _SEED_MASK]))
        torch.cuda.set_rng_state(inside, self.device)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self._outside:
            return
        state = self._outside.pop()
        if self.device.type == "cuda":
            moved = torch.cuda.get_rng_state(self.device)
            state = torch.cat([state[:8], moved[8:]])  # the common seed, moved on as far as the module drew
            torch.cuda.set_rng_state(state, self.device)
        else:
            torch.set_rng_state(state)
