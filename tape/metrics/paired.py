"""Paired bootstrap: the difference of two models on the same proteins, with its confidence interval.

If proteins differ much from each other, the intervals of two models overlap even if one model is better on nearly all
proteins. A paired bootstrap draws the same proteins for both models and computes the interval of the difference (Efron
and Tibshirani 1993, An Introduction to the Bootstrap, chapter 8). The interval covers the choice of the proteins, but
not the randomness of training, which is reduced by averaging several seeds of a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tape.errors import DataError

from .bootstrap import Bootstrap, bootstrap_intervals
from .by_task_type import TaskTypeMetrics
from .metric import Interval, Metric


@dataclass(frozen=True)
class Difference:
    """A metric of two models on the same proteins.

    Attributes:
        name: name of the metric.
        first, second: values of the two models, averaged over their seeds; ``nan`` if undefined.
        interval: bootstrap interval of ``first - second``; None if it is undefined.
    """

    name: str
    first: float
    second: float
    interval: Interval

    @property
    def value(self) -> float:
        return self.first - self.second


def paired_differences(
    first: Sequence[Sequence[Any]], second: Sequence[Sequence[Any]], metrics: TaskTypeMetrics, bootstrap: Bootstrap
) -> list[Difference]:
    """Compute the differences of all metrics of a task type.

    Args:
        first, second: for each seed of a model, the rows of ``metrics.measure`` of all proteins. The proteins must be
            the same in the same order.
        metrics: metrics of the task type.
        bootstrap: number of resamples, seed and level.

    Returns:
        One difference per metric, in the order of ``metrics.summarize``.

    Raises:
        DataError: the numbers of rows differ, or a model has no seed.
    """
    sizes = {len(rows) for model in (first, second) for rows in model}
    if len(sizes) != 1 or not (first and second):
        raise DataError(f"only the same proteins can be compared, not {sorted(sizes)} of them")
    proteins = sizes.pop()
    names = [metric.name for metric in metrics.summarize(first[0])]
    models = [[_array(rows) for rows in model] for model in (first, second)]

    def values(drawn: np.ndarray) -> np.ndarray:
        """(2, metrics) for the drawn proteins."""
        return np.array([_mean([metrics.summarize(rows[drawn]) for rows in model], names) for model in models])

    def statistic(counts: np.ndarray) -> np.ndarray:
        resampled = np.array([values(np.repeat(np.arange(proteins), times.astype(np.int64))) for times in counts])
        return resampled[:, 0] - resampled[:, 1]

    whole = values(np.arange(proteins))
    with np.errstate(invalid="ignore"):  # differences of infinite predictions, and their intervals, are undefined
        intervals = bootstrap_intervals(statistic, proteins, bootstrap) or [None] * len(names)
    return [
        Difference(name, one, other, interval if math.isfinite(one - other) else None)
        for name, one, other, interval in zip(names, *whole.tolist(), intervals, strict=True)
    ]


def _array(rows: Sequence[Any]) -> np.ndarray:
    """Rows as an array for fast indexing: a table of numbers, or an array of objects."""
    first = rows[0] if rows and isinstance(rows[0], tuple) else rows[:1]
    if all(isinstance(number, (int, float)) for number in first):
        return np.asarray(rows)
    objects = np.empty(len(rows), dtype=object)
    objects[:] = rows
    return objects


def _mean(seeds: Sequence[Sequence[Metric]], names: Sequence[str]) -> np.ndarray:
    """Mean of each named metric over the seeds; ``nan`` if it is missing or undefined for a seed."""
    found = [{metric.name: metric.value for metric in metrics} for metrics in seeds]
    return np.array([[values.get(name, math.nan) for name in names] for values in found]).mean(axis=0)
