"""Sizes of operands on a CPU in half precision, where each shape of a matrix product has a kernel of its own.

oneDNN compiles such a kernel in about a millisecond, takes 0.2 to 0.7 MB for it and keeps the 1,024 last used ones. A
packed row of 8,000 tokens hardly ever has as many tokens as an earlier one, so that every row would need new kernels,
and memory that is allocated for them between the activations breaks the heap into ever smaller pieces. Rows are
therefore padded to one of a few sizes, and single proteins to a multiple of 16 tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import low_precision
from .graph_capture import is_captured

SLOT_MULTIPLE = 16  # of the length of a protein in products of its own, such as attention
_BITS = 5  # significant ones of a size: 16 sizes from a power of two to the next, at most 1/16 larger than needed


def rounded_size(size: int) -> int:
    """The smallest number of at least ``size`` that has few significant bits."""
    unit = 1 << max(0, size.bit_length() - _BITS)
    return -(-size // unit) * unit


def compiles_each_shape(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether matrix products in ``dtype`` have a kernel for each shape."""
    return device.type == "cpu" and dtype.itemsize < 4 and low_precision.is_native(dtype)


def needs_few_shapes(values: Tensor) -> bool:
    """Whether matrix products with these values have a kernel for each shape; not asked while a graph is captured."""
    return not is_captured() and compiles_each_shape(values.device, low_precision.operand_dtype(values))
