"""Metrics of predicted values: squared and absolute error, Pearson's and Spearman's correlation.

TAPE's signature throughout: ``metric(target, prediction) -> float``. Both may be lists of one-element arrays, as
``results.pkl`` holds them. Plain numpy, since importing scipy.stats takes longer than a small evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .definitions import Metric


def _pairs(target: Any, prediction: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as flat float64 arrays of one length."""
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


def pearsonr(target: Any, prediction: Any) -> float:
    """Pearson's correlation; ``nan`` when either side is constant or has fewer than two values."""
    true, predicted = _pairs(target, prediction)
    if true.size < 2:
        return float("nan")
    true, predicted = true - true.mean(), predicted - predicted.mean()
    scale = np.sqrt(np.sum(true**2)) * np.sqrt(np.sum(predicted**2))
    return float(np.sum(true * predicted) / scale) if scale > 0 else float("nan")


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse.reshape(-1)]


def spearmanr(target: Any, prediction: Any) -> float:
    """Spearman's rho: Pearson's correlation of the average ranks, over the whole set at once."""
    true, predicted = _pairs(target, prediction)
    if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        return float("nan")
    return pearsonr(average_ranks(true), average_ranks(predicted))


def measure_value(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """One example's (prediction, target); both have one element."""
    return float(np.asarray(prediction).reshape(-1)[0]), float(np.asarray(target).reshape(-1)[0])


def summarise_values(rows: Sequence[tuple[float, float]]) -> list[Metric]:
    """All value metrics over the whole set: a rank correlation can't be averaged over batches or ranks."""
    predicted, true = np.asarray(rows, dtype=np.float64).reshape(-1, 2).T
    table = (
        ("spearmanr", spearmanr, "Spearman's rank correlation over all proteins at once, ties share their mean rank"),
        ("pearsonr", pearsonr, "Pearson's correlation over all proteins at once"),
        ("mse", mean_squared_error, "mean squared error over proteins"),
        ("mae", mean_absolute_error, "mean absolute error over proteins"),
    )
    return [Metric(name, function(true, predicted), true.size, text) for name, function, text in table]
