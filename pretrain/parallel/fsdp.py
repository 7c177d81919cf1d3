"""Fully sharded data parallelism: torch's FSDP2 (Zhao et al. 2023; ZeRO stage 3 of Rajbhandari et al. 2020).

The data-parallel ranks shard parameters, gradients and optimizer state. FSDP all-gathers a block's parameters just
before the block computes and frees them afterwards; it reduce-scatters the block's gradients in fp32. Composes with
tensor parallelism: a DTensor that is sharded over the tensor-parallel ranks is sharded further, on the two-dimensional
mesh.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from .context import ParallelContext


def apply_fsdp(module: nn.Module, context: ParallelContext) -> None:
    """Shard the parameters of ``module`` in place, apart from those of modules inside it that are sharded already.

    Does nothing unless the layout has sharded data parallelism.
    """
    if not context.dims.fsdp_enabled:
        return
    fully_shard(module, mesh=context.data_mesh)
    assert isinstance(module, FSDPModule)
    # The loss is divided by the number of predictions in the global batch: gradients are added up, not averaged.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def finalize_shards(root: nn.Module) -> None:
    """Make FSDP allocate the sharded parameters' final memory now instead of in the first forward pass.

    Gradient buckets and optimizer hold views of that memory, which must not move any more.
    """
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()


@contextmanager
def no_gradient_sync(root: nn.Module, active: bool) -> Iterator[None]:
    """Accumulate gradients on this rank without a reduce-scatter, for all micro-batches of a step but the last."""
    if not (active and isinstance(root, FSDPModule)):
        yield
        return
    root.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        root.set_requires_gradient_sync(True)
