"""The optimizer step: norm and clipping of the gradient, AdamW or SGD on this rank's part of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.parallel import GradientBuckets, LocalParameter
from tape.errors import ConfigError

from .lr_schedule import NOTHING_SKIPPED, Schedule, SkippedCounts

OPTIMIZERS = ("adam", "sgd")
_CLIP_EPSILON = 1e-6  # Megatron's and torch's


@dataclass(frozen=True)
class OptimizerConfig:
    """What moves the weights.

    Attributes:
        name: adam (AdamW, decoupled weight decay) or sgd.
        weight_decay: of matrices; biases and layer norms are not decayed.
        clip_grad: largest gradient norm; 0 for no limit.
        momentum: of sgd.
    """

    name: str = "adam"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    clip_grad: float = 1.0


class Optimizer:
    """Updates this rank's part of every parameter.

    It works on plain tensors, also where the model's parameters are DTensors: one fused update over everything.

    Args:
        parameters: of pretrain.parallel.local_parameters.
        gradients: their buffers.
        config: see the class.
        schedule: gives every iteration its learning rate.
    """

    def __init__(
        self,
        parameters: Sequence[LocalParameter],
        gradients: GradientBuckets,
        config: OptimizerConfig,
        schedule: Schedule,
    ) -> None:
        self.parameters = parameters
        self.gradients = gradients
        self.config = config
        self.schedule = schedule
        self._optimizer = _make(config, decay_groups(parameters, config.weight_decay))
        self._make_state()

    def step(
        self, iteration: int, norm: float, loss_scale: float = 1.0, left_out: SkippedCounts = NOTHING_SKIPPED
    ) -> None:
        """Update with the gradients in the buffers, clipped.

        Args:
            iteration: from 1; decides the learning rate, together with ``left_out``.
            norm: gradient norm, loss scale taken out.
            loss_scale: factor that the gradients carry.
            left_out: steps before this one without an update.
        """
        factor = 1.0 / loss_scale
        if 0.0 < self.config.clip_grad < norm + _CLIP_EPSILON:
            factor *= self.config.clip_grad / (norm + _CLIP_EPSILON)
        if factor != 1.0:
            self.gradients.scale(factor)
        for group in self._optimizer.param_groups:
            group["lr"] = self.schedule.rate(iteration, left_out)
        self._optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Everything the optimizer remembers, by ``parameter name.state name``; the tensors themselves, not copies.

        Tensors of a split parameter are DTensors, so that a checkpoint can be read at another layout.
        """
        return {
            f"{parameter.name}.{name}": parameter.as_global(value)
            for parameter in self.parameters
            for name, value in self._optimizer.state[parameter.local].items()
        }

    def _make_state(self) -> None:
        """Begin with zeros, as both optimizers do at their first step: reading a checkpoint needs a place."""
        for parameter in self.parameters:
            local = parameter.local
            state: dict[str, Any] = self._optimizer.state[local]
            if self.config.name == "adam":
                state["step"] = torch.zeros((), dtype=torch.float32, device=local.device)
                state["exp_avg"] = torch.zeros_like(local)
                state["exp_avg_sq"] = torch.zeros_like(local)
            elif self.config.momentum:
                state["momentum_buffer"] = torch.zeros_like(local)


def decay_groups(parameters: Sequence[LocalParameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices, which decay, and the rest (biases, layer norms), which does not."""
    matrices = [p.local for p in parameters if p.full.dim() >= 2]
    others = [p.local for p in parameters if p.full.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _make(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if config.name == "adam":
        betas = (config.beta1, config.beta2)
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.eps, fused=True)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, foreach=True)
    raise ConfigError(f"unknown --optimizer {config.name!r}; choose one of {', '.join(OPTIMIZERS)}")
