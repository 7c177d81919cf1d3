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

DECAY_STYLES = ("constant", "linear", "cosine", "inverse-square-root", "WSD")
# Style -> what is left of the learning rate after a fraction of the decay.
_DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda fraction: 1.0 - fraction,
    "cosine": lambda fraction: 0.5 * (math.cos(math.pi * fraction) + 1.0),
    "exponential": lambda fraction: 2.0 * 0.5**fraction - 1.0,
    "minus_sqrt": lambda fraction: 1.0 - math.sqrt(fraction),
}
WSD_DECAY_STYLES = tuple(_DECAYS)


@dataclass(frozen=True)
class WSDDecay:
    """The decay of a warmup-stable-decay schedule (``--lr-decay-style WSD``; Hu et al. 2024, MiniCPM, section 4).

    Attributes:
        length: its length in iterations or samples; until then the learning rate is constant.
        style: one of :data:`WSD_DECAY_STYLES`.
    """

    length: float
    style: str = "exponential"

    def __post_init__(self) -> None:
        if self.style not in WSD_DECAY_STYLES:
            allowed = ", ".join(WSD_DECAY_STYLES)
            raise ConfigError(f"unknown --lr-wsd-decay-style {quoted(self.style)}; choose one of {allowed}")


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


def learning_rate(
    done: float, lr: float, min_lr: float, style: str, decay: float, warmup: float, wsd: WSDDecay | None = None
) -> float:
    """Learning rate after ``done`` iterations or samples; all lengths are counted in the same unit.

    As in Megatron-LM the learning rate decays from the end of the warm-up to ``decay`` and is ``min_lr`` from there on.
    With the style ``constant`` there is only the warm-up, with ``WSD`` the decay is the last ``wsd.length`` before
    ``decay``, and with ``inverse-square-root`` the learning rate is proportional to 1 / sqrt(done), but not less than
    ``min_lr``.
    """
    if warmup > 0 and done <= warmup:
        return lr * done / warmup
    if style == "constant":
        return lr
    if done > decay:
        return min_lr
    if style == "inverse-square-root":
        return max(min_lr, lr * math.sqrt(max(warmup, 1.0) / max(done, 1.0)))
    start = warmup if wsd is None else decay - wsd.length
    if done <= start:
        return lr
    left = _DECAYS[style if wsd is None else wsd.style]((done - start) / (decay - start))
    return min_lr + left * (lr - min_lr)


def _check(lr: float, min_lr: float, style: str, decay: float, warmup: float, wsd: WSDDecay | None, unit: str) -> None:
    if style not in DECAY_STYLES:
        raise ConfigError(f"unknown --lr-decay-style {quoted(style)}; choose one of {', '.join(DECAY_STYLES)}")
    if not 0 <= min_lr <= lr:
        raise ConfigError(f"--min-lr {min_lr} should be between 0 and --lr {lr}")
    if decay < 1 or not 0 <= warmup < decay:
        words = {"iters": "iterations"}.get(unit, unit)
        raise ConfigError(f"a warm-up of {warmup:g} {words} does not fit into --lr-decay-{unit} {decay}")
    if (style == "WSD") != (wsd is not None):
        raise ConfigError(f"--lr-decay-style WSD and the length of its decay, --lr-wsd-decay-{unit}, need each other")
    if wsd is not None and not 0 < wsd.length <= decay - warmup:
        raise ConfigError(
            f"--lr-wsd-decay-{unit} {wsd.length:g} does not fit between the warm-up and --lr-decay-{unit} {decay}"
        )


@dataclass(frozen=True)
class ScheduleConfig:
    """A learning-rate schedule that is counted in iterations.

    Attributes:
        lr, min_lr: maximum learning rate, and minimum at the end of the decay.
        style: one of :data:`DECAY_STYLES`.
        decay_iters: number of iterations after which ``min_lr`` is reached.
        warmup_iters: number of iterations of linear warm-up.
        wsd: the decay of the style ``WSD``.
    """

    lr: float = 1e-4
    min_lr: float = 0.0
    style: str = "linear"
    decay_iters: int = 1
    warmup_iters: float = 0.0
    wsd: WSDDecay | None = None

    def __post_init__(self) -> None:
        _check(self.lr, self.min_lr, self.style, self.decay_iters, self.warmup_iters, self.wsd, "iters")

    def rate(self, iteration: int, skipped: SkippedCounts = NOTHING_SKIPPED) -> float:
        """Learning rate of an iteration (counted from 1) that came after these skipped steps."""
        done = iteration - 1 - skipped.steps
        return learning_rate(done, self.lr, self.min_lr, self.style, self.decay_iters, self.warmup_iters, self.wsd)


@dataclass(frozen=True)
class SampleScheduleConfig:
    """A learning-rate schedule that is counted in samples (rows); the global batch size may change during the run.

    Attributes:
        lr, min_lr, style, wsd: see :class:`ScheduleConfig`.
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
    wsd: WSDDecay | None = None

    def __post_init__(self) -> None:
        _check(self.lr, self.min_lr, self.style, self.decay_samples, self.warmup_samples, self.wsd, "samples")

    def rate(self, iteration: int, skipped: SkippedCounts = NOTHING_SKIPPED) -> float:
        """Learning rate of an iteration (counted from 1) that came after these skipped steps."""
        done = self.consumed_samples(iteration - 1) - skipped.samples
        return learning_rate(done, self.lr, self.min_lr, self.style, self.decay_samples, self.warmup_samples, self.wsd)
