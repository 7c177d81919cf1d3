"""Stacking arrays of unequal size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def pad_sequences(sequences: Sequence[Any], constant_value: float = 0, dtype: Any = None) -> np.ndarray:
    """Stack arrays of one rank into one array, each filled up at its far ends (TAPE's function).

    Args:
        sequences: B arrays of the same number of dimensions, each of any size.
        constant_value: what fills up.
        dtype: of the result; the first array's when None.

    Returns:
        (B, largest size in each dimension...).
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    shape = tuple(np.max([array.shape for array in arrays], axis=0).astype(int))
    padded = np.full((len(arrays), *shape), constant_value, dtype=dtype or arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return padded
