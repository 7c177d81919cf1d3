"""Paired bootstrap: the difference of two models on the same proteins, with its confidence interval.

If proteins differ much from each other, the intervals of two models overlap even if one model is better on nearly all
proteins. A paired bootstrap draws the same proteins for both models and computes the interval of the difference (Efron
and Tibshirani 1993, An Introduction to the Bootstrap, chapter 8). The interval covers the choice of the proteins, but
not the randomness of training, which is reduced by averaging several seeds of a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tape.errors import DataError

from .bootstrap import Bootstrap, Estimates, bootstrap_intervals, ratio_of_sums
from .by_task_type import TaskTypeMetrics
from .metric import Interval, Metric


@dataclass(frozen=True)
class Difference:
    """A metric of two models on the same proteins.

    Attributes:
        name: name of the metric.
        first, second: values of the two models, averaged over their seeds; ``nan`` if undefined.
        interval: bootstrap interval of ``first - second``; None if it is undefined.
        groups: number of groups that a mean within groups is over; None: it is not one.
    """

    name: str
    first: float
    second: float
    interval: Interval
    groups: int | None = None

    @property
    def value(self) -> float:
        return self.first - self.second


def paired_differences(
    first: Sequence[Sequence[Any]],
    second: Sequence[Sequence[Any]],
    metrics: TaskTypeMetrics,
    bootstrap: Bootstrap,
) -> list[Difference]:
    """Compute the differences of all metrics of a task type.

    Args:
        first, second: for each seed of a model, the rows of ``metrics.measure`` of all proteins. The proteins must be
            the same in the same order.
        metrics: metrics of the task type.
        bootstrap: number of resamples, seed, level, and groups of the proteins, if any.

    Returns:
        One difference per metric, in the order of ``metrics.summarize``.

    Raises:
        DataError: the numbers of rows differ, or a model has no seed.
    """
    sizes = {len(rows) for model in (first, second) for rows in model}
    if len(sizes) != 1 or not (first and second):
        raise DataError(f"only the same proteins can be compared, not {sorted(sizes)} of them")
    names = [metric.name for metric in metrics.summarize(first[0])]
    estimates = [[_estimates(rows, metrics, names) for rows in model] for model in (first, second)]
    statistics = [[seed.prepare() for seed in model] for model in estimates]

    def statistic(counts: np.ndarray) -> np.ndarray:
        one, other = (np.mean([seed(counts) for seed in model], axis=0) for model in statistics)
        return np.asarray(one - other)

    one, other = (_mean([seed.metrics for seed in model], names) for model in estimates)
    with np.errstate(invalid="ignore"):  # differences of infinite predictions, and their intervals, are undefined
        intervals = bootstrap_intervals(statistic, estimates[0][0].proteins, bootstrap)
    return _differences(names, one, other, intervals)


def differences_within_groups(
    first: Sequence[Sequence[Any]],
    second: Sequence[Sequence[Any]],
    metrics: TaskTypeMetrics,
    bootstrap: Bootstrap,
) -> list[Difference]:
    """The differences of metrics that are computed within each group and averaged over the groups.

    A metric over all proteins also depends on differences between groups, such as the proteins whose variants stability
    has. Groups in which a metric is undefined for a model do not count, and one group alone has no interval. Arguments,
    order and errors are those of :func:`paired_differences`; without groups there is no difference.
    """
    if bootstrap.groups is None:
        return []
    names = [metric.name for metric in metrics.summarize(first[0])]
    members = [np.flatnonzero(bootstrap.groups == number) for number in np.unique(bootstrap.groups)]
    one, other = (  # (groups, metrics)
        np.array([_mean([metrics.summarize([rows[k] for k in own]) for rows in model], names) for own in members])
        for model in (first, second)
    )
    defined = np.isfinite(one) & np.isfinite(other)
    one, other = (np.where(defined, values, 0.0) for values in (one, other))

    def statistic(counts: np.ndarray) -> np.ndarray:
        return ratio_of_sums(counts @ (one - other), counts @ defined)

    every = np.ones((1, len(members)))
    first_mean, second_mean = (ratio_of_sums(every @ values, every @ defined)[0] for values in (one, other))
    intervals = bootstrap_intervals(statistic, len(members), replace(bootstrap, groups=None))
    found = _differences(names, first_mean, second_mean, intervals)
    return [
        replace(difference, groups=count, interval=difference.interval if count > 1 else None)
        for difference, count in zip(found, defined.sum(axis=0).tolist(), strict=True)
    ]


def _differences(
    names: Sequence[str], first: np.ndarray, second: np.ndarray, intervals: Sequence[Interval]
) -> list[Difference]:
    """The differences of named values; those without a value have no interval."""
    values = zip(first.tolist(), second.tolist(), strict=True)
    return [
        Difference(name, *pair, interval if math.isfinite(pair[0] - pair[1]) else None)
        for name, pair, interval in zip(names, values, intervals or [None] * len(names), strict=True)
    ]


def _estimates(rows: Sequence[Any], metrics: TaskTypeMetrics, names: Sequence[str]) -> Estimates:
    """The metrics of one seed, which must have the given names, with their statistic."""
    if metrics.estimate is not None:
        found = metrics.estimate(rows)
        if [metric.name for metric in found.metrics] != list(names):
            raise DataError("only models with the same metrics can be compared; their numbers of classes differ")
        return found

    def statistic(counts: np.ndarray) -> np.ndarray:
        drawn = (np.repeat(np.arange(len(rows)), times.astype(np.int64)).tolist() for times in counts)
        return np.array([_mean([metrics.summarize([rows[index] for index in chosen])], names) for chosen in drawn])

    return Estimates(metrics.summarize(rows), len(rows), lambda: statistic)


def _mean(seeds: Sequence[Sequence[Metric]], names: Sequence[str]) -> np.ndarray:
    """Mean of each named metric over the seeds; ``nan`` if it is missing or undefined for a seed."""
    found = [{metric.name: metric.value for metric in metrics} for metrics in seeds]
    return np.array([[values.get(name, math.nan) for name in names] for values in found]).mean(axis=0)
