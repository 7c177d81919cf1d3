"""Parameters as the optimizer and the checkpoint see them: which part of each this rank has."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from .context import DATA_AXIS, TENSOR_AXIS, ParallelContext

TIED_NAME = "bert.embeddings.word_embeddings.weight"
DECODER_NAME = "mlm.decoder.weight"  # the same matrix, in the state dict under both names


@dataclass(frozen=True)
class LocalParameter:
    """A parameter and the part of it on this rank.

    Attributes:
        name: in the model's state dict.
        full: what the model computes with, a DTensor when it is split.
        local: the part here, sharing memory with ``full``; what the optimizer updates.
        is_split: tensor ranks hold different parts (and not copies) of it.
        is_sharded: data ranks do.
        is_partial: each tensor rank computes its gradient from its own tokens, and their sum is the gradient.
        is_copy: the last stage's copy of a matrix that the first stage has, too.
    """

    name: str
    full: nn.Parameter
    local: nn.Parameter
    is_split: bool = False
    is_sharded: bool = False
    is_partial: bool = False
    is_copy: bool = False

    def as_global(self, values: Tensor) -> Tensor:
        """Values of the local part, as the checkpoint sees them: a DTensor where the parameter is one."""
        if not isinstance(self.full, DTensor) or values.shape != self.local.shape:
            return values
        mesh, placements = self.full.device_mesh, self.full.placements
        shape, stride = self.full.shape, self.full.stride()
        return DTensor.from_local(values, mesh, placements, run_check=False, shape=shape, stride=stride)


def local_parameters(model: nn.Module, processes: ParallelContext) -> list[LocalParameter]:
    """All trained parameters of this rank's part of the model, tied ones once."""
    return [_local(name, parameter, processes) for name, parameter in model.named_parameters()]


def _local(name: str, parameter: nn.Parameter, processes: ParallelContext) -> LocalParameter:
    local = parameter
    axes: tuple[str, ...] = ()
    split: set[str] = set()
    if isinstance(parameter, DTensor):
        local = nn.Parameter(parameter.to_local().detach())
        axes = parameter.device_mesh.mesh_dim_names or ()
        split = {axis for axis, place in zip(axes, parameter.placements, strict=True) if _is_shard(place)}
    return LocalParameter(
        name=TIED_NAME if name == DECODER_NAME else name,
        full=parameter,
        local=local,
        is_split=TENSOR_AXIS in split,
        is_sharded=DATA_AXIS in split,
        is_partial=processes.dims.splits_tokens and TENSOR_AXIS not in axes,
        is_copy=name == DECODER_NAME,
    )


def _is_shard(place: object) -> bool:
    return isinstance(place, Shard) or type(place).__name__ == "_StridedShard"  # FSDP's, no subclass of Shard
