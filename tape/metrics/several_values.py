"""Metrics of several values per protein: of each target over the proteins that have it, and means over targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .bootstrap import Bootstrap, Estimates, Statistic, joined, ratio_of_sums
from .metric import Metric
from .values import estimate_values

# Metrics without a unit, whose mean over targets has a meaning -> their names in the definition.
_AVERAGED = {
    "spearmanr": "Spearman's rank correlation",
    "pearsonr": "Pearson's correlation",
    "r2": "the coefficient of determination",
}

# predictions and targets of one protein, (T,) each
SeveralRow = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SeveralValues:
    """The metrics of T targets; see :class:`tape.metrics.by_task_type.TaskTypeMetrics` for the methods.

    Attributes:
        columns: names of the targets. ``METRIC_COLUMN`` is the metric of one, ``METRIC`` the mean over targets.
    """

    columns: tuple[str, ...]

    def measure(self, prediction: np.ndarray, target: np.ndarray) -> SeveralRow:
        """(predictions, targets) of one protein, (T,) each; ``nan`` where a target is missing.

        Raises:
            ValueError: there are not T of each.
        """
        size = len(self.columns)
        predicted, true = (np.asarray(side, dtype=np.float64).reshape(-1) for side in (prediction, target))
        if predicted.size != size or true.size != size:
            raise ValueError(f"{predicted.size} predictions and {true.size} targets of {size}")
        return predicted, true

    def estimate(self, rows: Sequence[SeveralRow]) -> Estimates:
        """The means over targets, and all metrics of each target over the proteins that have it."""
        predicted, true = np.array(rows, dtype=np.float64).reshape(-1, 2, len(self.columns)).swapaxes(0, 1)
        each = [_of_target(column, *sides) for column, *sides in zip(self.columns, predicted.T, true.T, strict=True)]
        return joined([_means(self.columns, each), *each])

    def summarize(self, rows: Sequence[SeveralRow], bootstrap: Bootstrap | None = None) -> list[Metric]:
        """The metrics of :meth:`estimate`, with intervals if there is a bootstrap."""
        return self.estimate(rows).with_intervals(bootstrap)


def _of_target(column: str, predicted: np.ndarray, true: np.ndarray) -> Estimates:
    """The metrics of one target, which are resampled over all proteins, also those that lack it."""
    has = np.flatnonzero(~np.isnan(true))
    found = estimate_values(list(zip(predicted[has].tolist(), true[has].tolist(), strict=True)))
    metrics = [
        replace(metric, name=f"{metric.name}_{column}", definition=f"{metric.definition}; of {column}")
        for metric in found.metrics
    ]
    return Estimates(metrics, true.size, lambda: _of_drawn(found.prepare, has, len(metrics)))


def _of_drawn(prepare: Callable[[], Statistic], has: np.ndarray, metrics: int) -> Statistic:
    """The statistic over the proteins ``has``; undefined for resamples with none of them."""
    own = prepare() if has.size else None

    def statistic(counts: np.ndarray) -> np.ndarray:
        values = np.full((len(counts), metrics), np.nan)
        drawn = counts[:, has].sum(axis=1) > 0
        if own is not None and drawn.any():
            values[drawn] = own(counts[drawn][:, has])
        return values

    return statistic


def _means(columns: Sequence[str], each: Sequence[Estimates]) -> Estimates:
    """Means over the targets for which a metric is defined."""
    names = [metric.name.removesuffix(f"_{columns[0]}") for metric in each[0].metrics]
    places = [names.index(name) for name in _AVERAGED]
    values = np.array([[one.metrics[place].value for place in places] for one in each])
    means, counts = _mean_of_defined(values[None])
    metrics = [
        Metric(
            name,
            mean,
            count,
            f"mean of {text} over the targets for which it is defined",
            reason="" if count else "it is undefined for every target",
        )
        for (name, text), mean, count in zip(_AVERAGED.items(), means[0].tolist(), counts[0].tolist(), strict=True)
    ]

    def prepare() -> Statistic:
        statistics = [one.prepare() for one in each]
        return lambda drawn: _mean_of_defined(np.stack([one(drawn)[:, places] for one in statistics], axis=1))[0]

    return Estimates(metrics, each[0].proteins, prepare)


def _mean_of_defined(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over targets (resamples, M) of finite values (resamples, T, M), and how many there are."""
    defined = np.isfinite(values)
    counts = defined.sum(axis=1)
    return ratio_of_sums(np.where(defined, values, 0.0).sum(axis=1), counts), counts
