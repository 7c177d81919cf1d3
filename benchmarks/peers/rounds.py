"""Interleaved measurements: rounds over all variants, medians with their spread, and ratios paired by round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .protocol import Message, WorkerError

OURS = "proteinlm"


class Measuring(Protocol):
    """Measures on request: a :class:`benchmarks.peers.protocol.Worker`, or what takes its place."""

    def ask(self, request: Message) -> Message: ...


@dataclass(frozen=True)
class Variant:
    """One tool with one setting.

    Attributes:
        tool: name of the tool; :data:`OURS` for this repository.
        request: what its worker is asked.
        setting: the setting, for the table.
    """

    tool: str
    request: Mapping[str, Any]
    setting: str = ""


@dataclass
class Series:
    """The replies of one variant, one per round; each has ``seconds``.

    Attributes:
        warm_up: the reply of the warm-up.
        error: why it has no further replies; None if it has all.
    """

    variant: Variant
    replies: list[Message] = field(default_factory=list)
    warm_up: Message = field(default_factory=dict)
    error: str | None = None

    @property
    def seconds(self) -> list[float]:
        return [reply["seconds"] for reply in self.replies]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleave(variants: Sequence[Variant], workers: Mapping[str, Measuring | str], rounds: int) -> list[Series]:
    """Measure all variants in each round, after a warm-up of each; the order is reversed in every second round.

    Args:
        variants: what to measure.
        workers: the worker of each tool, or the reason why there is none.
        rounds: number of rounds.
    """
    series = [Series(variant) for variant in variants]
    for one in series:
        one.warm_up = _ask(one, workers[one.variant.tool], warm_up=True) or {}
    for number in range(rounds):
        for one in series if number % 2 == 0 else series[::-1]:
            reply = _ask(one, workers[one.variant.tool], warm_up=False)
            if reply is not None:
                one.replies.append(reply)
    return series


def _ask(series: Series, worker: Measuring | str, warm_up: bool) -> Message | None:
    """The reply to the request of a variant; None, with the error in the series, if there is none."""
    if isinstance(worker, str):
        series.error = worker
    elif series.error is None:
        try:
            return worker.ask({**series.variant.request, "warm_up": warm_up})
        except WorkerError as error:
            series.error = str(error)
    return None


def best_of(series: Sequence[Series], tool: str) -> Series | None:
    """The fastest setting of a tool; None if it has no complete series."""
    complete = [one for one in series if one.variant.tool == tool and one.error is None]
    return min(complete, key=lambda one: one.median, default=None)


@dataclass(frozen=True)
class Ratio:
    """How many times as long a variant takes as this repository, paired by round: median, minimum and maximum."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} x ({self.low:.2f} - {self.high:.2f})"


def ratio(of: Series, ours: Series) -> Ratio:
    """The ratios of the rounds' times."""
    values = [theirs / own for theirs, own in zip(of.seconds, ours.seconds, strict=True)]
    return Ratio(statistics.median(values), min(values), max(values))


def ratios_of(series: Sequence[Series]) -> list[Ratio | None]:
    """The ratio of each variant to the best setting of this repository; None if either has no complete series."""
    ours = best_of(series, OURS)
    return [None if ours is None or one.error is not None else ratio(one, ours) for one in series]
