"""Intervals of predicted values, by split conformal prediction.

The interval of a prediction is prediction +- q, where q is the k-th smallest absolute error of n proteins that the
model was not trained on, with k the smallest integer of at least 0.9 (n + 1). If these proteins and a new one are
exchangeable, the value of the new one is in its interval with a probability of at least 0.9, whatever the model and the
distribution of its errors (Lei et al. 2018, J. Am. Stat. Assoc. 113, section 2.2). Fewer than 9 proteins have none.

Here the n proteins are those of ``valid``. The epoch is chosen by them, too, so the interval is a little too narrow:
how many values of another split are in it is the metric ``coverage_90``. Proteins unlike those of ``valid`` have larger
errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .metric import Metric

LEAST_PROTEINS = 9  # with which ceil(0.9 (n + 1)) <= n
_DEFINITION = "share of the proteins whose value is in the 90 % interval of its prediction"


def half_widths(measured: Sequence[Any], columns: int = 1) -> tuple[float | None, ...]:
    """q of each column; None where fewer than LEAST_PROTEINS proteins have a value.

    Args:
        measured: (prediction, value) of N proteins, each a number or (columns,); ``nan`` for a missing value.
        columns: number of values per protein.
    """
    return tuple(None if len(errors) < LEAST_PROTEINS else _quantile(errors) for errors in _errors(measured, columns))


def coverage(measured: Sequence[Any], widths: Sequence[float | None], columns: Sequence[str]) -> list[Metric]:
    """The metric ``coverage_90``, or ``coverage_90_COLUMN`` of each of several columns that has an interval.

    Args:
        measured: as of :func:`half_widths`.
        widths: q of each column.
        columns: names of the columns.
    """
    metrics = []
    for column, width, errors in zip(columns, widths, _errors(measured, len(columns)), strict=True):
        if width is not None:
            name = "coverage_90" + (f"_{column}" if len(columns) > 1 else "")
            share = float(np.mean(errors <= width)) if errors.size else math.nan
            metrics.append(Metric(name, share, errors.size, _DEFINITION))
    return metrics


def _errors(measured: Sequence[Any], columns: int) -> list[np.ndarray]:
    """Absolute errors of each column, without those of missing values."""
    rows = np.asarray(measured, dtype=np.float64).reshape(-1, 2, columns)
    errors = np.abs(rows[:, 0] - rows[:, 1])
    return [errors[~np.isnan(rows[:, 1, place]), place] for place in range(columns)]


def _quantile(errors: np.ndarray) -> float | None:
    rank = -(-9 * (errors.size + 1) // 10)  # in integers: 0.9 is no number of float
    found = float(np.sort(errors)[rank - 1])  # sorts nan, of a diverged model, to the end
    return found if math.isfinite(found) else None
