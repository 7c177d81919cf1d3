"""Megatron-LM's learning-rate schedule: linear warm-up from 0, then decay, counted in iterations or in samples.

Megatron-LM always counts samples and multiplies a number of iterations by the global batch size; as long as that size
is constant, both are the same. The learning rate of an iteration depends on the iterations completed before it, so the
first iteration of a warm-up has learning rate 0. As in Megatron-LM, skipped steps do not advance the schedule: the
search for a loss scale shortens no warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tape.errors import ConfigError, quoted

DECAY_STYLES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class SkippedCounts:
    """Number of skipped steps before an iteration, and of the samples in them."""

    steps: int = 0
    samples: int = 0


NOTHING_SKIPPED = SkippedCounts()


class Schedule(Protocol):
    """A learning-rate schedule, as the optimizer uses it."""

    def rate(self, iteration: int, skipped: SkippedCounts = NOTHING_SKIPPED) -> float:
        """Learning rate of an iteration (counted from 1) that came after these skipped steps."""


def learning_rate(done: float, lr: float, min_lr: float, style: str, decay: float, warmup: float) -> float:
    """Learning rate after ``done`` iterations or samples; ``decay`` and ``warmup`` are counted in the same unit.

    As in Megatron-LM the learning rate decays from the end of the warm-up to ``decay`` and is ``min_lr`` from there on.
    With the style ``constant`` there is only the warm-up.
    """
    if warmup > 0 and done <= warmup:
        return lr * done / warmup
    if style == "constant":
        return lr
    if done > decay:
        return min_lr
    fraction = (done - warmup) / (decay - warmup)
    left = 1.0 - fraction if style == "linear" else 0.5 * (math.cos(math.pi * fraction) + 1.0)
    return min_lr + left * (lr - min_lr)


def _check(lr: float, min_lr: float, style: str, decay: float, warmup: float, unit: str) -> None:
    if style not in DECAY_STYLES:
        raise ConfigError(f"unknown --lr-decay-style {quoted(style)}; choose one of {', '.join(DECAY_STYLES)}")
    if not 0 <= min_lr <= lr:
        raise ConfigError(f"--min-lr {min_lr} should be between 0 and --lr {lr}")
    if decay < 1 or not 0 <= warmup < decay:
        words = {"iters": "iterations"}.get(unit, unit)
        raise ConfigError(f"a warm-up of {warmup:g} {words} does not fit into --lr-decay-{unit} {decay}")


@dataclass(frozen=True)
class ScheduleConfig:
    """A learning-rate schedule that is counted in iterations.

    Attributes:
        lr, min_lr: maximum learning rate, and minimum at the end of the decay.
        style: constant, linear or cosine.
        decay_iters: number of iterations after which ``min_lr`` is reached.
        warmup_iters: number of iterations of linear warm-up.
    """

    lr: float = 1e-4
    min_lr: float = 0.0
    style: str = "linear"
    decay_iters: int = 1
    warmup_iters: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr, self.min_lr, self.style, self.decay_iters, self.warmup_iters, "iters")

    def rate(self, iteration: int, skipped: SkippedCounts = NOTHING_SKIPPED) -> float:
        """Learning rate of an iteration (counted from 1) that came after these skipped steps."""
        done = iteration - 1 - skipped.steps
        return learning_rate(done, self.lr, self.min_lr, self.style, self.decay_iters, self.warmup_iters)


@dataclass(frozen=True)
class SampleScheduleConfig:
    """A learning-rate schedule that is counted in samples (rows); the global batch size may change during the run.

    Attributes:
        lr, min_lr, style: see :class:`ScheduleConfig`.
        decay_samples: number of samples after which ``min_lr`` is reached.
        warmup_samples: number of samples of linear warm-up.
        consumed_samples: returns the number of samples in the first n iterations.
    """

    lr: float
    min_lr: float
    style: str
    decay_samples: int
    warmup_samples: float
    consumed_samples: Callable[[int], int] = field(compare=False)

    def __post_init__(self) -> None:
        _check(self.lr, self.min_lr, self.style, self.decay_samples, self.warmup_samples, "samples")

    def rate(self, iteration: int, skipped: SkippedCounts = NOTHING_SKIPPED) -> float:
        """Learning rate of an iteration (counted from 1) that came after these skipped steps."""
        done = self.consumed_samples(iteration - 1) - skipped.samples
        return learning_rate(done, self.lr, self.min_lr, self.style, self.decay_samples, self.warmup_samples)
