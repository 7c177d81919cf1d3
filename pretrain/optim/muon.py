"""Muon (Jordan et al. 2024): momentum whose matrix is orthogonalized before the step.

For the matrices of the transformer blocks only; embeddings, biases and layer norms have AdamW. The update has all
singular values near 1, so directions of small gradient are learned as fast as those of large gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pretrain.parallel import LocalParameter

# Coefficients of the quintic iteration of Jordan et al.: steep at 0, and bounded near 1 without converging to it.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_EPSILON = 1e-7


class Muon:
    """Updates this rank's shards of matrices.

    Orthogonalization needs the full matrix: shards are gathered, and each rank orthogonalizes the whole (Megatron-LM's
    ``--muon-tp-mode duplicated``), so that the update does not depend on the layout. The interface is that of torch's
    optimizers, as far as :class:`~pretrain.optim.optimizer.Optimizer` uses it.

    Args:
        parameters: this rank's shards of the matrices.
        weight_decay: decoupled weight decay.
        momentum: decay rate of the momentum.
        nesterov: whether the update looks ahead by one step of momentum (Nesterov).
        steps: number of Newton-Schulz iterations.
        scale: factor on the update. An update times ``scale=0.2`` has the size of AdamW's (Liu et al. 2025, section
            2.2), so that both can share a learning rate.
    """

    def __init__(
        self,
        parameters: Sequence[LocalParameter],
        weight_decay: float,
        momentum: float,
        nesterov: bool,
        steps: int,
        scale: float,
    ) -> None:
        self._parameters = parameters
        self._momentum, self._nesterov, self._steps, self._scale = momentum, nesterov, steps, scale
        self.param_groups: list[dict[str, Any]] = [
            {"params": [parameter.local for parameter in parameters], "lr": 0.0, "weight_decay": weight_decay}
        ]
        self.state: dict[Tensor, dict[str, Tensor]] = {
            parameter.local: {"momentum_buffer": torch.zeros_like(parameter.local)} for parameter in parameters
        }

    @torch.no_grad()
    def step(self) -> None:
        """Update all matrices by their gradients; called by all ranks together."""
        group = self.param_groups[0]
        for parameter in self._parameters:
            local, gradient = parameter.local, parameter.local.grad
            assert gradient is not None
            momentum = self.state[local]["momentum_buffer"].lerp_(gradient, 1.0 - self._momentum)
            update = gradient.lerp(momentum, self._momentum) if self._nesterov else momentum
            update = parameter.shard_of(orthogonalize(parameter.gather(update), self._steps))
            local.mul_(1.0 - group["lr"] * group["weight_decay"])
            # An orthogonalized matrix has root mean square 1 / sqrt(its longer side).
            size = max(parameter.full.shape) ** 0.5
            local.add_(update, alpha=-group["lr"] * self._scale * size)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Approximately U V^T for a matrix U S V^T (m, n), by Newton-Schulz iterations; zero stays zero.

    In bf16 on GPUs, as published, and in fp32 on CPUs. Singular values end between about 0.7 and 1.2.
    """
    values = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    is_tall = matrix.shape[0] > matrix.shape[1]
    values = values.T if is_tall else values
    values = values / values.norm().clamp(min=_EPSILON)
    for _ in range(steps):
        gram = values @ values.T
        values = torch.addmm(values, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), values, beta=_A)
    return (values.T if is_tall else values).to(matrix.dtype)
