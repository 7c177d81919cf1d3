"""The optimizer step: gradient clipping by norm, then AdamW, SGD or Muon on this rank's shards of the parameters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pretrain.choices import OPTIMIZERS
from pretrain.parallel import GradientBuckets, LocalParameter
from tape.errors import ConfigError, quoted

from .lr_schedule import NOTHING_SKIPPED, Schedule, SkippedCounts
from .muon import Muon

_CLIP_EPSILON = 1e-6  # Megatron's and torch's
_WRAPPED_METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its hyperparameters, apart from the learning-rate schedule.

    Attributes:
        name: adam (AdamW, Loshchilov and Hutter 2019: decoupled weight decay), sgd, or muon (for the matrices of the
            transformer blocks, with AdamW for all other parameters).
        weight_decay: applies to matrices; biases and layer norms are not decayed.
        beta1, beta2, eps: hyperparameters of AdamW.
        momentum: momentum of SGD.
        muon_momentum, muon_nesterov, muon_num_ns_steps, muon_extra_scale_factor: see :class:`pretrain.optim.muon.Muon`.
        clip_grad: maximum gradient norm; 0 turns clipping off.
    """

    name: str = "adam"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    clip_grad: float = 1.0
    muon_momentum: float = 0.95
    muon_nesterov: bool = False
    muon_num_ns_steps: int = 5
    muon_extra_scale_factor: float = 1.0


class Optimizer:
    """Updates this rank's shard of every parameter.

    It holds the local tensors of the model's DTensors, so that AdamW updates all of them in one fused kernel.

    Args:
        parameters: this rank's shards of the parameters (:func:`pretrain.parallel.local_parameters`).
        gradients: the gradient buckets of these parameters.
        config: hyperparameters.
        schedule: learning-rate schedule.
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
        matrices: list[LocalParameter] = []
        others: list[LocalParameter] = []
        for parameter in parameters:
            is_matrix = config.name == "muon" and has_muon(parameter.name, parameter.full.dim())
            (matrices if is_matrix else others).append(parameter)
        groups = decay_groups(others, config.weight_decay)
        self._optimizers: list[torch.optim.Optimizer | Muon] = [_make(config, groups)]
        self._make_state(others)
        if config.name == "muon":
            self._optimizers.append(_make_muon(config, matrices))

    def step(
        self, iteration: int, norm: float, loss_scale: float = 1.0, skipped: SkippedCounts = NOTHING_SKIPPED
    ) -> None:
        """Unscale and clip the gradients in the buckets, and update the parameters.

        Args:
            iteration: counted from 1; determines the learning rate, together with ``skipped``.
            norm: norm of the unscaled gradient.
            loss_scale: factor by which the gradients in the buckets are multiplied.
            skipped: skipped steps before this one.
        """
        factor = 1.0 / loss_scale
        if 0.0 < self.config.clip_grad < norm + _CLIP_EPSILON:
            factor *= self.config.clip_grad / (norm + _CLIP_EPSILON)
        if factor != 1.0:
            self.gradients.scale(factor)
        rate = self.schedule.rate(iteration, skipped)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """The optimizer state by ``PARAMETER.STATE``, for example ``mlm.bias.exp_avg``; not copied.

        The state of a sharded parameter is a DTensor, so that a checkpoint can be loaded at another layout.
        """
        return {
            f"{parameter.name}.{name}": parameter.as_global(value)
            for parameter in self.parameters
            for optimizer in self._optimizers
            if parameter.local in optimizer.state
            for name, value in optimizer.state[parameter.local].items()
        }

    def _make_state(self, parameters: Sequence[LocalParameter]) -> None:
        """Allocate torch's state, which it does in the first step, so that a checkpoint can be loaded into it."""
        for parameter in parameters:
            local = parameter.local
            state: dict[str, Any] = self._optimizers[0].state[local]
            if self.config.name != "sgd":
                state["step"] = torch.zeros((), dtype=torch.float32, device=local.device)
                state["exp_avg"] = torch.zeros_like(local)
                state["exp_avg_sq"] = torch.zeros_like(local)
            elif self.config.momentum:
                state["momentum_buffer"] = torch.zeros_like(local)


def has_muon(name: str, dimensions: int) -> bool:
    """Whether ``--optimizer muon`` updates a parameter by Muon: a matrix of a transformer block."""
    return dimensions == 2 and ".layer." in name


def decay_groups(parameters: Sequence[LocalParameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices, with weight decay, and biases and layer norms, without."""
    matrices = [p.local for p in parameters if p.full.dim() >= 2]
    others = [p.local for p in parameters if p.full.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@cache
def _without_compiler(optimizer: type[torch.optim.Optimizer]) -> Any:
    """A subclass that computes the same without importing torch._dynamo, which takes as long as importing torch.

    torch wraps these methods so that their first call imports it, to keep them out of compiled functions.
    """
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in _WRAPPED_METHODS}
    step = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), {**methods, "step": step})


def _make(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if config.name in ("adam", "muon"):
        betas = (config.beta1, config.beta2)
        return _without_compiler(torch.optim.AdamW)(groups, lr=0.0, betas=betas, eps=config.eps, fused=True)
    if config.name == "sgd":
        return _without_compiler(torch.optim.SGD)(groups, lr=0.0, momentum=config.momentum, foreach=True)
    raise ConfigError(f"unknown --optimizer {quoted(config.name)}; choose one of {', '.join(OPTIMIZERS)}")


def _make_muon(config: OptimizerConfig, matrices: Sequence[LocalParameter]) -> Muon:
    return Muon(
        matrices,
        config.weight_decay,
        config.muon_momentum,
        config.muon_nesterov,
        config.muon_num_ns_steps,
        config.muon_extra_scale_factor,
    )
