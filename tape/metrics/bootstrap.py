"""Bootstrap confidence intervals over proteins (Efron 1979, percentile intervals).

A resample draws N of N proteins with replacement. It is represented by the number of times each protein was drawn, so
that a statistic of all resamples is a matrix product, or a sum along values that were sorted once, instead of a loop.
All metrics of an evaluation use the same seed and therefore the same resamples. Rows must be in the order of the data
set, so that intervals do not depend on batches or ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tape.errors import ConfigError

from .metric import Interval, Metric

# Elements of one block of resamples, which bounds its memory to 8 MB.
_BLOCK = 1 << 20

# Maps counts (resamples, proteins) to values (resamples, metrics), nan where undefined.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap.

    Attributes:
        resamples: number of resamples.
        seed: seed of the random draws.
        level: confidence level; 0.95 excludes 2.5 % on either side.
        groups: (N,) number of each protein's group. A resample then draws whole groups, as many as there are (Field and
            Welsh 2007, "Bootstrapping clustered data"): proteins of a family are not independent, and intervals over
            single proteins are too narrow. None: proteins are drawn.

    Raises:
        ConfigError: a value is out of range.
    """

    resamples: int = 1000
    seed: int = 42
    level: float = 0.95
    groups: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ConfigError(f"a bootstrap needs at least 1 resample, not {self.resamples}")
        if self.seed < 0:
            raise ConfigError(f"a bootstrap's seed must not be negative, as {self.seed} is")
        if not 0 < self.level < 1:
            raise ConfigError(f"a bootstrap's level must be between 0 and 1, not {self.level}")

    def settings(self) -> dict[str, int | float]:
        """What determines the resamples of given proteins or groups, for records."""
        return {"resamples": self.resamples, "seed": self.seed, "level": self.level}

    def among(self, proteins: np.ndarray) -> Bootstrap:
        """The bootstrap of some of the proteins, given by their indices."""
        return self if self.groups is None else replace(self, groups=self.groups[proteins])


def resampled_counts(proteins: int, bootstrap: Bootstrap, width: int | None = None) -> Iterator[np.ndarray]:
    """Yield blocks (resamples, proteins) float64: how often each protein was drawn.

    Args:
        proteins: number of proteins.
        bootstrap: number of resamples and seed.
        width: elements of a resample that bound the size of a block; default: ``proteins``.
    """
    rng = np.random.default_rng(bootstrap.seed)
    step = max(1, _BLOCK // (width or proteins))
    for start in range(0, bootstrap.resamples, step):
        rows = min(step, bootstrap.resamples - start)
        drawn = rng.integers(0, proteins, (rows, proteins)) + np.arange(rows)[:, None] * proteins
        yield np.bincount(drawn.reshape(-1), minlength=rows * proteins).reshape(rows, proteins).astype(np.float64)


def bootstrap_intervals(statistic: Statistic, proteins: int, bootstrap: Bootstrap) -> list[Interval]:
    """Percentile intervals of a statistic.

    Args:
        statistic: maps counts (resamples, proteins) to values (resamples, metrics), ``nan`` where undefined.
        proteins: number of proteins.
        bootstrap: number of resamples, seed, level, and groups of these proteins, if any.

    Returns:
        (low, high) of each metric, None for a metric that is undefined in all resamples; an empty list for fewer than
        two proteins, or groups.
    """
    drawn, groups = proteins, None
    if bootstrap.groups is not None:
        names, groups = np.unique(bootstrap.groups, return_inverse=True)
        drawn = len(names)
    if drawn < 2:
        return []
    blocks = resampled_counts(drawn, bootstrap, proteins)
    values = np.concatenate([statistic(counts if groups is None else counts[:, groups]) for counts in blocks])
    tail = (1 - bootstrap.level) / 2
    intervals: list[Interval] = []
    for column in values.T:
        defined = column[np.isfinite(column)]
        low_high = np.quantile(defined, [tail, 1 - tail]) if defined.size else None
        intervals.append(None if low_high is None else (float(low_high[0]), float(low_high[1])))
    return intervals


def ratio_of_sums(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Elementwise ratio; ``nan`` where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.full(numerators.shape, np.nan), where=denominators != 0)


@dataclass(frozen=True)
class Estimates:
    """Metrics of a set of proteins, with the statistic that computes all of them for resamples of the proteins.

    Attributes:
        metrics: M metrics without interval.
        proteins: N, the number of proteins that are resampled.
        prepare: makes the statistic, which maps counts (resamples, N) to values (resamples, M). Sorting and summing
            that do not depend on the resample are done here, once.
    """

    metrics: list[Metric]
    proteins: int
    prepare: Callable[[], Statistic]

    def with_intervals(self, bootstrap: Bootstrap | None) -> list[Metric]:
        """The metrics with bootstrap intervals; without them if ``bootstrap`` is None."""
        if bootstrap is None or self.proteins < 2:
            return list(self.metrics)
        intervals = bootstrap_intervals(self.prepare(), self.proteins, bootstrap)
        return [metric.with_interval(interval) for metric, interval in zip(self.metrics, intervals, strict=True)]


def joined(estimates: Sequence[Estimates]) -> Estimates:
    """Several estimates of the same proteins as one, in which all metrics share the resamples."""
    (proteins,) = {one.proteins for one in estimates}

    def prepare() -> Statistic:
        statistics = [one.prepare() for one in estimates]
        return lambda counts: np.concatenate([statistic(counts) for statistic in statistics], axis=1)

    return Estimates([metric for one in estimates for metric in one.metrics], proteins, prepare)


def ratios(metrics: Sequence[Metric], numerators: np.ndarray, denominators: np.ndarray) -> Estimates:
    """Estimates of metrics that are ratios of sums over proteins. (A mean has denominators of 1.)

    Args:
        metrics: M metrics without interval.
        numerators: (proteins, M).
        denominators: (proteins, M); 0 where a protein is not counted.
    """

    def statistic(counts: np.ndarray) -> np.ndarray:
        return ratio_of_sums(counts @ numerators, counts @ denominators)

    return Estimates(list(metrics), len(numerators), lambda: statistic)


def with_intervals(
    metrics: Sequence[Metric], numerators: np.ndarray, denominators: np.ndarray, bootstrap: Bootstrap | None
) -> list[Metric]:
    """Add intervals to metrics that are ratios of sums over proteins, as in :func:`ratios`; None adds none."""
    return ratios(metrics, numerators, denominators).with_intervals(bootstrap)
