"""The mean and deviation by which values are standardized."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tape.errors import DataError
from tape.targets import Scale

_LEAST_SPREAD = 1e-5  # deviation relative to the largest value; below, fewer than 100 numbers of fp32 are in it
_LARGEST = 1e30  # of values; its inverse is the least deviation


def mean_and_deviation(values: Sequence[float], name: str) -> Scale:
    """The mean of N values, and their standard deviation with the divisor N.

    Args:
        values: those of the training proteins.
        name: what has the values, for messages.

    Raises:
        DataError: a value is not finite, all are equal, or the values of targets and predictions, which are fp32, can't
            tell them apart or hold their squares.
    """
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise DataError(f"{name} is {numbers[~np.isfinite(numbers)][0]} for a training protein; values must be finite")
    mean, std, peak = float(numbers.mean()), float(numbers.std()), float(np.abs(numbers).max(initial=0))
    if not std > 1e-12 * peak:
        raise DataError(f"{name} is {numbers[0]:g} for all training proteins: nothing to learn")
    if std < _LEAST_SPREAD * peak:
        raise DataError(
            f"{name} is {mean:.9g} with deviation {std:.3g} for the training proteins, which numbers in fp32 can't tell"
            f" apart; subtract {mean:.6g} from all values"
        )
    if not (peak <= _LARGEST and std >= 1 / _LARGEST):
        raise DataError(
            f"{name} has values up to {peak:.3g} with deviation {std:.3g} for the training proteins, beyond what fp32"
            f" can compute with ({1 / _LARGEST:g} to {_LARGEST:g}); give them in another unit"
        )
    return Scale(mean, std)


def describe_scale(name: str, scale: Scale, own: Scale) -> str:
    """A line for the log on the scale of a run, and on that of its data if the run was resumed with others.

    Args:
        name: what has the values.
        scale: the scale that the weights of the run are trained with.
        own: the scale of its training values.
    """
    used = f"mean {scale.mean:.6g} and deviation {scale.std:.6g}"
    if np.allclose(scale, own, rtol=1e-9, atol=0):
        return f"{name} is standardized by its {used}"
    return (
        f"{name} is standardized by {used} as before the resume, which the weights have been trained with; its training"
        f" values now have mean {own.mean:.6g} and deviation {own.std:.6g}"
    )
