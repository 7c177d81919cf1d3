"""Tensor parallelism as Megatron-LM's (Shoeybi et al. 2019, section 3): what is split, what is replicated.

In each block the query, key and value projections and the first FFN matrix are split by columns, so that every rank
holds some of the heads and some of the FFN; the attention's dense map and the second FFN matrix are split by rows, and
their outputs are summed: one sum after attention and one after the FFN, and the mirror of both in the backward pass.

Replicated are: layer norms and the biases after a sum, because the residual stream is whole on every rank; the
embeddings and the language-model head, because a protein vocabulary has 30 rows: splitting 30 x H (Megatron pads
31 to 128 rows per rank for it) saves nothing and costs two more exchanges and a split cross entropy.

With sequence parallelism (Korthikanti et al. 2022) each rank has its own part of the tokens wherever the residual
stream is whole otherwise: a gather of the tokens comes before the column-split matrices, and the sum after the
row-split ones leaves every rank with its part. The embeddings, the layer norms, hidden dropout and the head then work
on a part each, and the gradients of their parameters are summed over the ranks once a step (gradients.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tape.models.attention import AttentionCore
from tape.models.modeling_bert import ProteinBertForMaskedLM

from .processes import Processes
from .split_blocks import split_block
from .stages import own_blocks

_RANK_STRIDE = 0x9E3779B97F4A7C15  # odd 64-bit constant that spreads rank numbers over seeds (golden ratio)
_SEED_MASK = (1 << 62) - 1


def apply_tensor_parallel(model: ProteinBertForMaskedLM, processes: Processes) -> None:
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
            _SplitRandomness(processes.device, processes.tensor_rank).attach(module)


class _SplitRandomness:
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
