"""How far two models are apart on the same proteins: a paired bootstrap.

Intervals of two models overlap easily where the proteins differ much among themselves, though one model is better on
nearly all of them. Here every resample draws the same proteins for both, and the interval is that of the difference
(Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from .bootstrap import Bootstrap, bootstrap_intervals
from .by_shape import ShapeMetrics
from .definitions import Interval


@dataclass(frozen=True)
class Difference:
    """A metric of two models on the same proteins.

    Attributes:
        name: of the metric.
        first, second: its values; ``nan`` where undefined.
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
    first: Sequence[Any], second: Sequence[Any], metrics: ShapeMetrics, bootstrap: Bootstrap
) -> list[Difference]:
    """Differences of all metrics of a shape.

    Args:
        first, second: rows of ``metrics.measure``, one a protein, of the same proteins in the same order.
        metrics: of the task's shape.
        bootstrap: how many resamples, seed, level.

    Raises:
        DataError: there are not equally many rows.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} proteins against {len(second)}: only the same proteins can be compared")
    models = (list(first), list(second))

    def difference(drawn: np.ndarray) -> np.ndarray:
        one, other = (_values([rows[index] for index in drawn.tolist()], metrics) for rows in models)
        return one - other

    def statistic(counts: np.ndarray) -> np.ndarray:
        return np.array([difference(np.repeat(np.arange(len(first)), times.astype(np.int64))) for times in counts])

    whole = [metrics.summarise(rows) for rows in models]
    intervals = bootstrap_intervals(statistic, len(first), bootstrap) or [None] * len(whole[0])
    return [
        Difference(one.name, one.value, other.value, interval)
        for one, other, interval in zip(*whole, intervals, strict=True)
    ]


def _values(rows: Sequence[Any], metrics: ShapeMetrics) -> np.ndarray:
    return np.array([metric.value for metric in metrics.summarise(rows)])
