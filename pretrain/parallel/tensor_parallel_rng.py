"""Random numbers of dropout inside tensor-parallel regions, which must differ between the ranks that share a model.

Outside these regions every tensor-parallel rank computes the same residual stream and must draw the same dropout mask.
Inside, each rank computes other attention heads and must draw a mask of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tape.models.attention import AttentionCore

from .context import ParallelContext

_RANK_STRIDE = 0x9E3779B97F4A7C15  # odd 64-bit constant that spreads rank numbers over seeds (golden ratio)
_SEED_MASK = (1 << 62) - 1


def apply_tensor_parallel_rng(model: nn.Module, context: ParallelContext) -> None:
    """Give attention dropout random numbers of its own on each tensor-parallel rank.

    This holds at every layout, with one tensor-parallel rank too, so that dropout outside the tensor-parallel regions
    draws the same random numbers at all layouts.
    """
    for module in model.modules():
        if isinstance(module, AttentionCore) and module.dropout > 0:
            TensorParallelRNG(context.device, context.tensor_rank).attach(module)


class TensorParallelRNG:
    """A random number generator state of this rank's own while a module runs.

    It serves the purpose of Megatron-LM's CudaRNGStatesTracker, but keeps no state between calls: the state inside is
    derived from the common state at entry and from the rank. Activation checkpointing restores that common state
    before it recomputes the module in the backward pass, so that the same numbers are drawn again, and checkpoints
    need not store any state.

    Args:
        device: the device that computes dropout.
        tensor_rank: this process among the tensor-parallel ranks.
    """

    def __init__(self, device: torch.device, tensor_rank: int) -> None:
        self.device = device
        self.offset = (tensor_rank + 1) * _RANK_STRIDE
        self._common: list[Tensor] = []

    def attach(self, module: nn.Module) -> None:
        """Switch the state in every forward pass of ``module`` in training mode."""
        module.register_forward_pre_hook(self._enter)
        module.register_forward_hook(self._leave, always_call=True)

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if not module.training:
            return
        if self.device.type == "cuda":
            self._enter_cuda()
            return
        seed = int(torch.randint(_SEED_MASK, ()))  # advances the common state, equally on all ranks
        self._common.append(torch.get_rng_state())
        torch.default_generator.manual_seed((seed + self.offset) & _SEED_MASK)

    def _enter_cuda(self) -> None:
        # A Philox state is (seed, offset): another seed is another stream, and reading it needs no synchronization.
        common = torch.cuda.get_rng_state(self.device)
        self._common.append(common)
        own = common.clone()
        seed = own[:8].view(torch.int64)
        seed.copy_(torch.tensor([(int(seed) + self.offset) & _SEED_MASK]))
        torch.cuda.set_rng_state(own, self.device)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self._common:
            return
        common = self._common.pop()
        if self.device.type == "cuda":
            own = torch.cuda.get_rng_state(self.device)
            common = torch.cat([common[:8], own[8:]])  # the common seed, advanced by as much as the module drew
            torch.cuda.set_rng_state(common, self.device)
        else:
            torch.set_rng_state(common)
