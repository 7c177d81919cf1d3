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

from .bootstrap import Bootstrap, ratios
from .metric import Metric

LEAST_PROTEINS = 9  # with which ceil(0.9 (n + 1)) <= n
_DEFINITION = "share of the proteins whose value is in the 90 % interval of its prediction"


def half_widths(measured: Sequence[Any], columns: int = 1) -> tuple[float | None, ...]:
    """q of each column; None where fewer than LEAST_PROTEINS proteins have a value.

    Args:
        measured: (prediction, value) of N proteins, each a number or (columns,); ``nan`` for a missing value.
        columns: number of values per protein.
    """
    of_columns = [errors[~np.isnan(errors)] for errors in _errors(measured, columns).T]
    return tuple(None if errors.size < LEAST_PROTEINS else _quantile(errors) for errors in of_columns)


def coverage(
    measured: Sequence[Any], widths: Sequence[float | None], columns: Sequence[str], bootstrap: Bootstrap | None = None
) -> list[Metric]:
    """The metric ``coverage_90``, or ``coverage_90_COLUMN`` of each of several columns that has an interval.

    Args:
        measured: as of :func:`half_widths`.
        widths: q of each column.
        columns: names of the columns.
        bootstrap: resampling for the intervals of the metrics; None: without.
    """
    places = [place for place, width in enumerate(widths) if width is not None]
    errors = _errors(measured, len(columns))[:, places]
    has = ~np.isnan(errors)
    inside = has & (errors <= np.array([width for width in widths if width is not None]))
    metrics = []
    for place, kept, counted in zip(places, inside.T, has.T, strict=True):
        name = "coverage_90" + (f"_{columns[place]}" if len(columns) > 1 else "")
        share = kept.sum() / counted.sum() if counted.any() else math.nan
        metrics.append(Metric(name, float(share), int(counted.sum()), _DEFINITION))
    return ratios(metrics, inside.astype(float), has.astype(float)).with_intervals(bootstrap) if metrics else []


def _errors(measured: Sequence[Any], columns: int) -> np.ndarray:
    """Absolute errors (N, columns); ``nan`` where a value is missing, and infinite where a prediction is no number."""
    rows = np.asarray(measured, dtype=np.float64).reshape(-1, 2, columns)
    predicted = np.where(np.isnan(rows[:, 0]), np.inf, rows[:, 0])
    return np.abs(predicted - rows[:, 1])


def _quantile(errors: np.ndarray) -> float | None:
    rank = -(-9 * (errors.size + 1) // 10)  # in integers: 0.9 is no number of float
    found = float(np.sort(errors)[rank - 1])
    return found if math.isfinite(found) else None
