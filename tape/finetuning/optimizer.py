"""AdamW as TAPE's checkpoints describe it, parameter groups, and the warm-up-then-linear schedule.

AdamW here is Loshchilov and Hutter 2019, algorithm 2, in the form of Google's BERT: eps is added to the root of the
uncorrected second moment, and the decay follows the step. The arithmetic runs in PyTorch's fused kernel.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import LambdaLR

from tape.models.freezing import encoder_of

from .config import AdamWConfig

# Warm-up when --warmup_steps is not given: TAPE's 10,000 steps, but no more than a tenth of the run (bug 11 in
# docs/compatibility.md).
LONGEST_DEFAULT_WARMUP = 10_000
DEFAULT_WARMUP_FRACTION = 0.1


class AdamW(Optimizer):
    """Adam with decoupled decay.

    State per parameter: ``step`` (int), ``exp_avg``, ``exp_avg_sq``, as in TAPE's ``checkpoint.bin``.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the root of the uncorrected second moment.
        weight_decay: p -= lr * weight_decay * p after each step.
        correct_bias: divide the moments by 1 - beta^step.
    """

    # The base class wraps these so that their first call imports torch._dynamo, which doubles the start-up time of a
    # command. They need no compiler: take the plain functions.
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "correct_bias": correct_bias}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for members in self._members_by_step(group).values():
                self._update(group, members)
        return loss

    def _members_by_step(self, group: dict[str, Any]) -> dict[tuple[int, torch.device], list[nn.Parameter]]:
        """Parameters with a gradient, by their number of updates (a parameter may have been frozen at first)."""
        members: dict[tuple[int, torch.device], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            members.setdefault((int(state["step"]), parameter.device), []).append(parameter)
        return members

    def _update(self, group: dict[str, Any], members: list[nn.Parameter]) -> None:
        states = [self.state[parameter] for parameter in members]
        done = int(states[0]["step"])
        beta1, beta2 = group["betas"]
        # The kernel's denominator is sqrt(v / c2) + eps, c2 = 1 - beta2^step; BERT's is (sqrt(v) + eps) / sqrt(c2).
        correction = math.sqrt(1.0 - beta2 ** (done + 1))
        lr, decay = group["lr"], group["lr"] * group["weight_decay"]
        if not group["correct_bias"]:
            lr = lr * (1.0 - beta1 ** (done + 1)) / correction
        # The kernel's decay precedes the step: (1 - d) p - lr' u. BERT's follows it: (1 - d) (p - lr u).
        lr *= 1.0 - decay
        parameters: list[Tensor] = list(members)
        adamw(
            parameters,
            [parameter.grad for parameter in members if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            list(torch.full((len(members),), float(done), device=members[0].device).unbind()),
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=decay / lr if decay else 0.0,  # the kernel multiplies it by its learning rate
            eps=group["eps"] / correction,
            maximize=False,
        )
        for state in states:
            state["step"] = done + 1


def parameter_groups(
    model: nn.Module, weight_decay: float, head_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Two groups: matrices decay; biases, layer norms, batch norms and ``weight_g`` do not.

    The latter are the parameters with fewer than two dimensions and those called a bias (bug 6 in
    docs/compatibility.md).

    Args:
        model: a task model.
        weight_decay: weight decay of matrices.
        head_learning_rate: learning rate of the parameters outside the encoder, which are then the last two groups.
    """
    encoder = encoder_of(model)
    inside = set() if encoder is None else {id(parameter) for parameter in encoder.parameters()}
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (weight_decay, 0.0)]
    if head_learning_rate is not None:
        groups += [{**group, "params": [], "lr": head_learning_rate} for group in groups]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim < 2 or name.endswith("bias")
        is_head = head_learning_rate is not None and id(parameter) not in inside
        groups[2 * is_head + exempt]["params"].append(parameter)
    return groups


def default_warmup_steps(total_steps: int) -> int:
    """A tenth of all steps, at most 10,000."""
    return min(LONGEST_DEFAULT_WARMUP, int(total_steps * DEFAULT_WARMUP_FRACTION))


class PeakFractionLR(LambdaLR):
    """Learning rates that are fractions of their peaks, given by the method ``lr_lambda`` of a subclass.

    ``LambdaLR`` keeps its function. A bound method would be a reference cycle, in which optimizer, weights and moments
    stay in memory until the garbage collector runs; here it is bound at each use.

    Args:
        optimizer: its current learning rates are the peaks.
        last_epoch: optimizer steps that are done; -1: none.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, self.lr_lambda, last_epoch)

    def lr_lambda(self, step: int) -> float:
        """Fraction of the peak after ``step`` optimizer steps."""
        raise NotImplementedError

    @property
    def lr_lambdas(self) -> list[Callable[[int], float]]:
        """The function of each parameter group."""
        return [self.lr_lambda] * len(self.optimizer.param_groups)

    @lr_lambdas.setter
    def lr_lambdas(self, functions: list[Callable[[int], float]]) -> None:
        """Keeps nothing of what ``LambdaLR`` sets."""


class WarmupLinearSchedule(PeakFractionLR):
    """Learning rate from 0 to its peak over ``warmup_steps``, then linearly to 0 at ``t_total``.

    Args:
        optimizer: its current learning rates are the peaks.
        warmup_steps: optimizer steps.
        t_total: optimizer steps of the whole run.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, t_total: int, last_epoch: int = -1) -> None:
        self.warmup_steps = warmup_steps
        self.t_total = t_total
        super().__init__(optimizer, last_epoch)

    def lr_lambda(self, step: int) -> float:
        """Fraction of the peak after ``step`` optimizer steps."""
        if step < self.warmup_steps:
            return step / max(1, self.warmup_steps)
        return max(0.0, (self.t_total - step) / max(1, self.t_total - self.warmup_steps))

    def set_step(self, step: int) -> None:
        """Set the learning rate for the state after ``step`` optimizer steps.

        Peak and length are those of this schedule, so a resumed run may be longer than the interrupted one (bug 9 in
        docs/compatibility.md).
        """
        self.last_epoch = step
        self._step_count = step + 1
        rates = [base * self.lr_lambda(step) for base in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = rates


def untrained_state(model: nn.Module, config: AdamWConfig) -> dict[str, dict[str, Any]]:
    """State of an optimizer that has taken no step, and of a schedule without warm-up, as in ``checkpoint.bin``."""
    optimizer, schedule = make_optimizer(model, AdamWConfig(config.learning_rate, config.weight_decay, 0), 1)
    return {"optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}


def make_optimizer(model: nn.Module, config: AdamWConfig, total_steps: int) -> tuple[AdamW, WarmupLinearSchedule]:
    """Optimizer and learning-rate schedule of a run of ``total_steps`` optimizer steps."""
    warmup = config.warmup_steps if config.warmup_steps is not None else default_warmup_steps(total_steps)
    optimizer = AdamW(parameter_groups(model, config.weight_decay, config.head_learning_rate), lr=config.learning_rate)
    return optimizer, WarmupLinearSchedule(optimizer, warmup, total_steps)
