"""The mean and deviation by which values are standardized."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tape.errors import DataError


def mean_and_deviation(values: Sequence[float], name: str) -> tuple[float, float]:
    """The mean of N values, and their standard deviation with the divisor N.

    Args:
        values: those of the training proteins.
        name: what has the values, for messages.

    Raises:
        DataError: a value is not finite, or all are equal.
    """
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise DataError(f"{name} is {numbers[~np.isfinite(numbers)][0]} for a training protein; values must be finite")
    std = float(numbers.std())
    if not std > 1e-12 * float(np.abs(numbers).max(initial=0)):
        raise DataError(f"{name} is {numbers[0]:g} for all training proteins: nothing to learn")
    return float(numbers.mean()), std
