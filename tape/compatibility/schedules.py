"""Learning-rate schedules of TAPE's ``tape.optimization`` beside the linear one of :mod:`tape.finetuning.optimizer`."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tape.finetuning.optimizer import PeakFractionLR


class ConstantLRSchedule(LambdaLR):
    """The optimizer's learning rates."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, lambda step: 1.0, last_epoch=last_epoch)


class WarmupConstantSchedule(PeakFractionLR):
    """Learning rate from 0 to its peak over ``warmup_steps``, then constant.

    Args:
        optimizer: its current learning rates are the peaks.
        warmup_steps: optimizer steps.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, last_epoch: int = -1) -> None:
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, last_epoch)

    def lr_lambda(self, step: int) -> float:
        """Fraction of the peak after ``step`` optimizer steps."""
        return step / self.warmup_steps if step < self.warmup_steps else self._after_warmup(step)

    def _after_warmup(self, step: int) -> float:
        return 1.0


class WarmupCosineSchedule(WarmupConstantSchedule):
    """Learning rate from 0 to its peak over ``warmup_steps``, then along a cosine, which is 0 at ``t_total``.

    Args:
        optimizer: its current learning rates are the peaks.
        warmup_steps: optimizer steps.
        t_total: optimizer steps of the whole run.
        cycles: periods of the cosine; the default is the half one down to 0.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, t_total: int, cycles: float = 0.5, last_epoch: int = -1
    ) -> None:
        self.t_total, self.cycles = t_total, cycles
        super().__init__(optimizer, warmup_steps, last_epoch)

    def _after_warmup(self, step: int) -> float:
        return (1 + math.cos(2 * math.pi * self.cycles * self._progress(step))) / 2

    def _progress(self, step: int) -> float:
        """Fraction of the steps after the warm-up."""
        return (step - self.warmup_steps) / max(1, self.t_total - self.warmup_steps)


class WarmupCosineWithHardRestartsSchedule(WarmupCosineSchedule):
    """Learning rate from 0 to its peak over ``warmup_steps``, then ``cycles`` times along a half cosine to 0.

    Args:
        optimizer: its current learning rates are the peaks.
        warmup_steps: optimizer steps.
        t_total: optimizer steps of the whole run.
        cycles: number of decays.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, t_total: int, cycles: float = 1.0, last_epoch: int = -1
    ) -> None:
        super().__init__(optimizer, warmup_steps, t_total, cycles, last_epoch)

    def _after_warmup(self, step: int) -> float:
        progress = self._progress(step)
        return 0.0 if progress >= 1 else (1 + math.cos(math.pi * (self.cycles * progress % 1))) / 2
