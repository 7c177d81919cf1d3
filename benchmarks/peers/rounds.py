"""Interleaved measurements: rounds over all variants, medians with their spread, and ratios paired by round."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch

from .protocol import Message, Worker, WorkerError

OURS = "proteinlm"


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
        error: why it has no further replies; None if it has all.
    """

    variant: Variant
    replies: list[Message] = field(default_factory=list)
    error: str | None = None

    @property
    def seconds(self) -> list[float]:
        return [reply["seconds"] for reply in self.replies]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleave(
    variants: Sequence[Variant], workers: Mapping[str, Worker | str], rounds: int, warm_up: Mapping[str, Any]
) -> list[Series]:
    """Measure all variants in each round, after a warm-up of each; the order is reversed in every second round.

    Args:
        variants: what to measure.
        workers: the worker of each tool, or the reason why there is none.
        rounds: number of rounds.
        warm_up: fields that make a request a warm-up, whose reply is not used.
    """
    series = [Series(variant) for variant in variants]
    for one in series:
        _ask(one, workers, warm_up)
        one.replies.clear()
    for number in range(rounds):
        for one in series if number % 2 == 0 else series[::-1]:
            _ask(one, workers, {})
    return series


def _ask(series: Series, workers: Mapping[str, Worker | str], fields: Mapping[str, Any]) -> None:
    worker = workers[series.variant.tool]
    if isinstance(worker, str):
        series.error = worker
    if series.error is None and isinstance(worker, Worker):
        try:
            series.replies.append(worker.ask({**series.variant.request, **fields}))
        except WorkerError as error:
            series.error = str(error)


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


def machine() -> dict[str, Any]:
    """The machine and the date, for the result file."""
    name = platform.processor() or platform.machine()
    flags: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        values = {key.strip(): value.strip() for key, value in fields.items()}
        name, flags = values.get("model name", name), values.get("flags", "").split()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "processor": name,
        "instructions": [flag for flag in wanted if flag in flags],
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "date": date.today().isoformat(),
    }
