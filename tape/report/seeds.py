"""The mean of a metric over runs that differ only in their seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tape.finetuning.seeds import spread
from tape.metrics import Metric

from .cells import shown_number


@dataclass(frozen=True)
class SeedMean(Metric):
    """The mean of a metric over seeds; it has no bootstrap interval.

    Attributes:
        std: sample standard deviation; None if only one run has the metric.
        seeds: number of runs with the metric.
    """

    std: float | None = None
    seeds: int = 0

    @property
    def shown(self) -> str:
        """Standard deviation and number of seeds, as text."""
        if self.std is None:
            return f"({self.seeds} seed)"
        return f"\N{PLUS-MINUS SIGN} {shown_number(self.std, metric=self.name)} ({self.seeds} seeds)"

    @property
    def reach(self) -> tuple[float, float] | None:
        """(mean - std, mean + std); None without a standard deviation."""
        return None if self.std is None else (self.value - self.std, self.value + self.std)


def mean_over_seeds(metrics: Sequence[Metric | None]) -> SeedMean | None:
    """Mean and standard deviation over the runs that have the metric; None if no run has it."""
    found = [metric for metric in metrics if metric is not None]
    if not found:
        return None
    numbers = spread([metric.value if math.isfinite(metric.value) else None for metric in found])
    mean = math.nan if numbers["mean"] is None else numbers["mean"]
    return SeedMean(found[0].name, mean, found[0].n, found[0].definition, std=numbers["std"], seeds=numbers["n"])
