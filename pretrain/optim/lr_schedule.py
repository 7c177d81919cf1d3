"""Megatron's learning rate: linear warm-up from 0, then decay; counted in iterations or in samples.

Megatron counts samples in both cases and multiplies iterations by the global batch; with a batch that stays the same
these are one thing. An iteration's rate follows from what lies behind it, so the first one of a warm-up has rate 0.
As there, steps whose update was left out do not count: the search for a loss scale uses up no warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tape.errors import ConfigError

DECAY_STYLES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class SkippedCounts:
    """Steps before an iteration whose update was left out, and the samples in them."""

    steps: int = 0
    samples: int = 0


NOTHING_SKIPPED = SkippedCounts()


class Schedule(Protocol):
    """What the optimizer asks."""

    def rate(self, iteration: int, left_out: SkippedCounts = NOTHING_SKIPPED) -> float:
        """Learning rate of an iteration (1, 2, ...)."""


def learning_rate(done: float, lr: float, min_lr: float, style: str, decay: float, warmup: float) -> float:
    """Learning rate when ``done`` iterations or samples lie behind; ``decay`` and ``warmup`` are of the same unit.

    As in Megatron the decay runs from the end of the warm-up to ``decay``, and stays at ``min_lr`` from there on;
    a constant rate has the warm-up only.
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
        raise ConfigError(f"unknown --lr-decay-style {style!r}; choose one of {', '.join(DECAY_STYLES)}")
    if not 0 <= min_lr <= lr:
        raise ConfigError(f"--min-lr {min_lr} should lie between 0 and --lr {lr}")
    if decay < 1 or not 0 <= warmup < decay:
        words = {"iters": "iterations"}.get(unit, unit)
        raise ConfigError(f"a warm-up of {warmup:g} {words} does not fit into --lr-decay-{unit} {decay}")


@dataclass(frozen=True)
class ScheduleConfig:
    """A schedule in iterations.

    Attributes:
        lr, min_lr: peak, and where the decay ends.
        style: constant, linear or cosine.
        decay_iters: iterations after which ``min_lr`` is reached.
        warmup_iters: length of the warm-up.
    """

    lr: float = 1e-4
    min_lr: float = 0.0
    style: str = "linear"
    decay_iters: int = 1
    warmup_iters: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr, self.min_lr, self.style, self.decay_iters, self.warmup_iters, "iters")

    def rate(self, iteration: int, left_out: SkippedCounts = NOTHING_SKIPPED) -> float:
        """Learning rate of an iteration (1, 2, ...)."""
        done = iteration - 1 - left_out.steps
        return learning_rate(done, self.lr, self.min_lr, self.style, self.decay_iters, self.warmup_iters)


@dataclass(frozen=True)
class SampleScheduleConfig:
    """A schedule in samples (rows), which holds also where the global batch grows on the way.

    Attributes:
        lr, min_lr, style: as in :class:`ScheduleConfig`.
        decay_samples: samples after which ``min_lr`` is reached.
        warmup_samples: length of the warm-up.
        consumed_samples: how many samples the first n iterations take.
    """

    lr: float
    min_lr: float
    style: str
    decay_samples: int
    warmup_samples: float
    consumed_samples: Callable[[int], int] = field(compare=False)

    def __post_init__(self) -> None:
        _check(self.lr, self.min_lr, self.style, self.decay_samples, self.warmup_samples, "samples")

    def rate(self, iteration: int, left_out: SkippedCounts = NOTHING_SKIPPED) -> float:
        """Learning rate of an iteration (1, 2, ...)."""
        done = self.consumed_samples(iteration - 1) - left_out.samples
        return learning_rate(done, self.lr, self.min_lr, self.style, self.decay_samples, self.warmup_samples)
