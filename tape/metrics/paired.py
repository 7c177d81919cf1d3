"""How far two models are apart on the same proteins: a paired bootstrap.

Intervals of two models overlap easily where the proteins differ much among themselves, though one model is better on
nearly all of them. Here every resample draws the same proteins for both, and the interval is that of the difference
(Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 8). It covers the choice of proteins, not the
chance in training, of which several seeds of a model average some out.
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
        name: of the metric.
        first, second: its values, each a mean over the seeds of a model; ``nan`` where undefined.
        interval: bootstrap interval of ``first - second``; None where none can be made.
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
    """Differences of all metrics of a shape.

    Args:
        first, second: a model's seeds, one or more; of each the rows of ``metrics.measure``, one a protein. The
            proteins of all are the same, in the same order.
        metrics: of the task's shape.
        bootstrap: how many resamples, seed, level.

    Returns:
        One a metric, in the order of ``metrics.summarize``.

    Raises:
        DataError: there are not equally many rows of all, or no seed of a model.
    """
    sizes = {len(rows) for model in (first, second) for rows in model}
    if len(sizes) != 1 or not (first and second):
        raise DataError(f"only the same proteins can be compared, not {sorted(sizes)} of them")
    proteins = sizes.pop()
    names = [metric.name for metric in metrics.summarize(first[0])]
    models = [[_array(rows) for rows in model] for model in (first, second)]

    def values(drawn: np.ndarray) -> np.ndarray:
        """(2, metrics) of the proteins that were drawn."""
        return np.array([_mean([metrics.summarize(rows[drawn]) for rows in model], names) for model in models])

    def statistic(counts: np.ndarray) -> np.ndarray:
        resampled = np.array([values(np.repeat(np.arange(proteins), times.astype(np.int64))) for times in counts])
        return resampled[:, 0] - resampled[:, 1]

    whole = values(np.arange(proteins))
    with np.errstate(invalid="ignore"):  # infinite predictions: their differences are undefined, and so is the interval
        intervals = bootstrap_intervals(statistic, proteins, bootstrap) or [None] * len(names)
    return [
        Difference(name, one, other, interval if math.isfinite(one - other) else None)
        for name, one, other, interval in zip(names, *whole.tolist(), intervals, strict=True)
    ]


def _array(rows: Sequence[Any]) -> np.ndarray:
    """Rows in a form that is indexed at once: numbers as a table, others as objects."""
    first = rows[0] if rows and isinstance(rows[0], tuple) else rows[:1]
    if all(isinstance(number, (int, float)) for number in first):
        return np.asarray(rows)
    objects = np.empty(len(rows), dtype=object)
    objects[:] = rows
    return objects


def _mean(seeds: Sequence[Sequence[Metric]], names: Sequence[str]) -> np.ndarray:
    """Of each named metric over the seeds; ``nan`` where a seed lacks it or has it undefined."""
    found = [{metric.name: metric.value for metric in metrics} for metrics in seeds]
    return np.array([[values.get(name, math.nan) for name in names] for values in found]).mean(axis=0)
