"""Metrics of predicted values: squared and absolute error, R2, Pearson and Spearman correlation.

Functions have TAPE's signature ``metric(target, prediction) -> float``. Both arguments may be lists of one-element
arrays, as in ``results.pkl``. The correlations are weighted: the weights are 1 for the metric itself, and the number of
times that each protein was drawn for a bootstrap resample, which then needs no sorting. scipy.stats has no weighted
correlations; the tests compare the unweighted ones with it. R2 is scikit-learn's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tape.errors import DataError

from .bootstrap import Bootstrap, Estimates, Statistic
from .metric import Metric


def _pairs(target: Any, prediction: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both arguments as flat float64 arrays of the same length."""
    true = np.asarray(target, dtype=np.float64).reshape(-1)
    predicted = np.asarray(prediction, dtype=np.float64).reshape(-1)
    if true.shape != predicted.shape:
        raise DataError(f"{true.size} targets but {predicted.size} predictions")
    return true, predicted


def mean_squared_error(target: Any, prediction: Any) -> float:
    true, predicted = _pairs(target, prediction)
    return float(np.mean(np.square(true - predicted))) if true.size else float("nan")


def mean_absolute_error(target: Any, prediction: Any) -> float:
    true, predicted = _pairs(target, prediction)
    return float(np.mean(np.abs(true - predicted))) if true.size else float("nan")


def root_mean_squared_error(target: Any, prediction: Any) -> float:
    return math.sqrt(mean_squared_error(target, prediction))


def r_squared(target: Any, prediction: Any) -> float:
    """Coefficient of determination; ``nan`` if the targets are constant, a side is not finite, or there are fewer than
    two values."""
    from sklearn.metrics import r2_score

    true, predicted = _pairs(target, prediction)
    if true.size < 2 or not (np.isfinite(true).all() and np.isfinite(predicted).all()) or (true == true[0]).all():
        return float("nan")
    return float(r2_score(true, predicted))


def weighted_correlation(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation of each row.

    Args:
        true, predicted: (N,) or (rows, N).
        weights: (rows, N), non-negative, with a positive sum.

    Returns:
        (rows,); ``nan`` where either side is constant.
    """
    total = weights.sum(axis=-1, keepdims=True)
    x = true - (weights * true).sum(axis=-1, keepdims=True) / total
    y = predicted - (weights * predicted).sum(axis=-1, keepdims=True) / total
    spread_x, spread_y = ((weights * side**2).sum(axis=-1) for side in (x, y))
    # The deviations of a constant are rounding errors of its mean, not exactly 0.
    defined = np.ones(spread_x.shape, dtype=bool)
    for spread, side in ((spread_x, true), (spread_y, predicted)):
        defined &= spread > 1e-26 * (weights * np.square(side)).sum(axis=-1)
    scale = np.sqrt(spread_x * spread_y)
    covariance = (weights * x * y).sum(axis=-1)
    return np.clip(np.divide(covariance, scale, out=np.full(scale.shape, np.nan), where=defined), -1, 1)


def average_ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Ranks (from 1) of values with multiplicities; ties have the mean of their ranks.

    Args:
        values: (N,).

    Returns:
        A function that maps (rows, N) numbers of occurrences to (rows, N) ranks. The values are sorted only once.
    """
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    group = inverse.reshape(-1)
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))

    def ranks(counts: np.ndarray) -> np.ndarray:
        occurring = np.add.reduceat(counts[:, order], starts, axis=1)
        mean_rank = np.cumsum(occurring, axis=1) - (occurring - 1) / 2
        return np.asarray(mean_rank[:, group])

    return ranks


def _pearson(true: np.ndarray, predicted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda counts: weighted_correlation(true, predicted, counts)


def _spearman(true: np.ndarray, predicted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    rank_true, rank_predicted = average_ranks(true), average_ranks(predicted)
    return lambda counts: weighted_correlation(rank_true(counts), rank_predicted(counts), counts)


def _correlation(make: Callable[..., Callable[[np.ndarray], np.ndarray]], target: Any, prediction: Any) -> float:
    true, predicted = _pairs(target, prediction)
    if true.size < 2 or not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        return float("nan")
    return float(make(true, predicted)(np.ones((1, true.size)))[0])


def pearsonr(target: Any, prediction: Any) -> float:
    """Pearson correlation; ``nan`` if either side is constant, not finite, or has fewer than two values."""
    return _correlation(_pearson, target, prediction)


def spearmanr(target: Any, prediction: Any) -> float:
    """Spearman correlation: Pearson correlation of the average ranks; ``nan`` as in :func:`pearsonr`."""
    return _correlation(_spearman, target, prediction)


def measure_value(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """(prediction, target) of one protein, each given as an array with one element."""
    return float(np.asarray(prediction).reshape(-1)[0]), float(np.asarray(target).reshape(-1)[0])


def _why_undefined(true: np.ndarray, predicted: np.ndarray) -> str:
    """Why a correlation is undefined; empty if it is defined, or if there is no protein at all."""
    for name, side in (("targets", true), ("predictions", predicted)):
        if not np.isfinite(side).all():
            return f"some {name} are not finite"
    if true.size == 1:
        return "it takes at least two proteins"
    for name, side in (("targets", true), ("predictions", predicted)):
        if side.size and (side == side[0]).all():
            return f"all {name} are equal"
    return ""


_UNDEFINED = "undefined when either side is constant"
_DEFINITIONS = (
    (
        "spearmanr",
        spearmanr,
        f"Spearman's rank correlation over all proteins at once, ties share their mean rank; {_UNDEFINED}",
    ),
    ("pearsonr", pearsonr, f"Pearson's correlation over all proteins at once; {_UNDEFINED}"),
    ("mse", mean_squared_error, "mean squared error over proteins"),
    ("mae", mean_absolute_error, "mean absolute error over proteins"),
    ("rmse", root_mean_squared_error, "square root of the mean squared error over proteins"),
    (
        "r2",
        r_squared,
        "coefficient of determination: 1 - squared error / squared error of the mean target; undefined when the targets"
        " are constant",
    ),
)


def estimate_values(rows: Sequence[tuple[float, float]]) -> Estimates:
    """All value metrics over the entire set, since a rank correlation can't be averaged over batches."""
    predicted, true = np.asarray(rows, dtype=np.float64).reshape(-1, 2).T
    why = _why_undefined(true, predicted)
    metrics = [
        Metric(name, function(true, predicted), true.size, text, reason=why) for name, function, text in _DEFINITIONS
    ]
    return Estimates(metrics, true.size, lambda: _resampled(true, predicted))


def summarize_values(rows: Sequence[tuple[float, float]], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """The metrics of :func:`estimate_values`, with intervals if there is a bootstrap."""
    return estimate_values(rows).with_intervals(bootstrap)


def _resampled(true: np.ndarray, predicted: np.ndarray) -> Statistic:
    """All value metrics of resamples, in the order of ``_DEFINITIONS``; all undefined if a value is not finite."""
    if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        return lambda counts: np.full((len(counts), len(_DEFINITIONS)), np.nan)
    spearman, pearson = _spearman(true, predicted), _pearson(true, predicted)
    errors = np.stack([np.square(true - predicted), np.abs(true - predicted)], axis=1)
    deviations = true - true.mean()
    moments = np.stack([deviations, np.square(deviations)], axis=1)

    def statistic(counts: np.ndarray) -> np.ndarray:
        drawn = counts.sum(axis=1, keepdims=True)  # as many as proteins, unless only some of those drawn have a value
        means = counts @ errors / drawn
        mean, square = (counts @ moments / drawn).T
        variance = square - np.square(mean)
        varies = variance > 1e-13 * square  # the variance of a constant is a rounding error, not exactly 0
        unexplained = np.divide(means[:, 0], variance, out=np.full(len(counts), np.nan), where=varies)
        return np.column_stack([spearman(counts), pearson(counts), means, np.sqrt(means[:, 0]), 1 - unexplained])

    return statistic
