"""Bootstrap intervals over proteins (Efron 1979, percentile form): how far a number moves with the proteins it is over.

A resample draws as many proteins as there are, with replacement; it is held as the number of times each was drawn, so
that a statistic of all resamples is a matrix product instead of a loop. One seed gives one set of resamples to all
metrics of an evaluation. Rows must come in the order of the data set: then no interval depends on batches or ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tape.errors import ConfigError

from .metric import Interval, Metric

# Numbers of one block of resamples: 8 MB each, whatever the size of the set.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: how many times the proteins are drawn.
        seed: of the draws.
        level: probability that the interval covers, 0.95 for 2.5 % cut off on either side.
    """

    resamples: int = 1000
    seed: int = 42
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ConfigError(f"a bootstrap needs at least 1 resample, not {self.resamples}")
        if self.seed < 0:
            raise ConfigError(f"a bootstrap's seed must not be negative, as {self.seed} is")
        if not 0 < self.level < 1:
            raise ConfigError(f"a bootstrap's level must lie between 0 and 1, not {self.level}")


def resampled_counts(proteins: int, bootstrap: Bootstrap) -> Iterator[np.ndarray]:
    """Blocks (resamples, proteins) float64: how often each protein was drawn."""
    rng = np.random.default_rng(bootstrap.seed)
    step = max(1, _BLOCK // proteins)
    for start in range(0, bootstrap.resamples, step):
        rows = min(step, bootstrap.resamples - start)
        drawn = rng.integers(0, proteins, (rows, proteins)) + np.arange(rows)[:, None] * proteins
        yield np.bincount(drawn.reshape(-1), minlength=rows * proteins).reshape(rows, proteins).astype(np.float64)


def bootstrap_intervals(
    statistic: Callable[[np.ndarray], np.ndarray], proteins: int, bootstrap: Bootstrap
) -> list[Interval]:
    """Percentile intervals of a statistic.

    Args:
        statistic: (resamples, proteins) counts -> (resamples, metrics) values, ``nan`` where undefined.
        proteins: how many there are.
        bootstrap: how many resamples, seed, level.

    Returns:
        (low, high) of each metric; None with fewer than two proteins, or where no resample defined it.
    """
    if proteins < 2:
        return []
    values = np.concatenate([statistic(counts) for counts in resampled_counts(proteins, bootstrap)])
    tail = (1 - bootstrap.level) / 2
    intervals: list[Interval] = []
    for column in values.T:
        defined = column[np.isfinite(column)]
        low_high = np.quantile(defined, [tail, 1 - tail]) if defined.size else None
        intervals.append(None if low_high is None else (float(low_high[0]), float(low_high[1])))
    return intervals


def ratio_of_sums(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Sum over sum along axis 0; ``nan`` where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.full(numerators.shape, np.nan), where=denominators != 0)


def with_intervals(
    metrics: Sequence[Metric], numerators: np.ndarray, denominators: np.ndarray, bootstrap: Bootstrap | None
) -> list[Metric]:
    """Metrics that are ratios of sums over proteins (a mean has denominators of 1), with their intervals.

    Args:
        metrics: M metrics without interval.
        numerators: (proteins, M).
        denominators: (proteins, M); 0 where a protein does not count.
        bootstrap: None leaves the metrics as they are.
    """
    if bootstrap is None:
        return list(metrics)

    def statistic(counts: np.ndarray) -> np.ndarray:
        return ratio_of_sums(counts @ numerators, counts @ denominators)

    intervals = bootstrap_intervals(statistic, len(numerators), bootstrap) or [None] * len(metrics)
    return [metric.with_interval(interval) for metric, interval in zip(metrics, intervals, strict=True)]
