"""numpy's arrays, scalars and data types in restricted pickles.

Pickles of arrays call functions of numpy that trust their arguments. Here arrays are built by :func:`numpy.frombuffer`
from bytes whose number and data type were checked: numbers, booleans and text of fixed width. Arrays of objects,
structured and void types are refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from .types import (
    Name,
    PickleTypes,
    RefusedPickleError,
    Unfinished,
    bytes_of,
    constructors,
    described,
    is_size,
    refuse_arguments,
)

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
_CODE = re.compile(rf"(?:{'|'.join(_NUMBERS)})|[SU][1-9]\d{{0,8}}", re.ASCII)
_TEXT_FLAGS = 8  # numpy's flags of the data types of text; those of numbers are 0
_MOST_DIMENSIONS = 32
_LAST_CODE_POINT = 0x10FFFF
_NDARRAY = Name("numpy.ndarray")


# Patterns such as int(size) would cost more than the array: Python looks for attributes of int that it lacks.
def _is_one_of(value: object, numbers: tuple[int, ...]) -> bool:
    return isinstance(value, int) and value in numbers


class _DataType(Unfinished):
    """``numpy.dtype(code, align, copy)``; its state may set nothing but the byte order."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code) or align not in (0, 1) or copy not in (0, 1):
            raise RefusedPickleError(f"numpy's data type {described(code)}, which is neither numbers nor text")
        self._dtype = np.dtype(code)

    def finish(self, state: Any) -> np.dtype[Any]:
        dtype = self._dtype
        match state:
            case (3, "<" | ">" | "|" | "=" as order, None, None, None, size, alignment, flags) if (
                _is_one_of(size, (dtype.itemsize, -1))
                and _is_one_of(alignment, (dtype.alignment, -1))
                and _is_one_of(flags, (0, _TEXT_FLAGS))
            ):
                return dtype.newbyteorder(order)
        raise refuse_arguments(f"numpy's data type {dtype.str!r}", state)


class _Array(Unfinished):
    """``numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")``; the state holds everything."""

    def __init__(self, kind: object, shape: object, code: object) -> None:
        if kind is not _NDARRAY or shape != (0,) or code not in ("b", b"b"):
            raise refuse_arguments("numpy.ndarray", (kind, shape, code))

    def finish(self, state: Any) -> np.ndarray[Any, Any]:
        match state:
            case (1, shape, dtype, fortran, data) if (
                isinstance(shape, tuple) and isinstance(dtype, np.dtype) and isinstance(fortran, int)
            ):
                return _build(data, dtype, shape, "F" if fortran else "C")
        raise refuse_arguments("numpy.ndarray", state)


def _build(data: object, dtype: np.dtype[Any], shape: tuple[Any, ...], order: Any) -> np.ndarray[Any, Any]:
    """An array with memory of its own from checked bytes."""
    content = bytes_of(data)
    if len(shape) > _MOST_DIMENSIONS or not all(map(is_size, shape)):
        raise refuse_arguments("numpy.ndarray", shape)
    if math.prod(shape) * dtype.itemsize != len(content):
        raise RefusedPickleError(f"an array of shape {described(shape)} and type {dtype} has {len(content)} bytes")
    flat = np.frombuffer(content, dtype)
    _check_values(flat)
    return flat.reshape(shape, order=order).copy(order)


def _check_values(flat: np.ndarray[Any, Any]) -> None:
    """Refuse bytes that are no values of their type, on which numpy's operations are undefined or fail later."""
    kind = flat.dtype.kind
    if kind == "b" and flat.size and flat.view(np.uint8).max() > 1:
        raise RefusedPickleError("an array of booleans has other values")
    if kind == "U" and flat.size and flat.view(flat.dtype.byteorder.replace("|", "=") + "u4").max() > _LAST_CODE_POINT:
        raise RefusedPickleError("an array of text has values that are no characters")


def _scalar(dtype: object, data: object) -> Any:
    if not isinstance(dtype, np.dtype):
        raise refuse_arguments("numpy's scalar", (dtype, data))
    return _build(data, dtype, (1,), "C")[0]


def _from_buffer(data: object, dtype: object, shape: object, order: object, axes: object = None) -> Any:
    """``numpy.core.numeric._frombuffer``, which protocol 5 calls."""
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple) or order not in ("C", "F") or axes is not None:
        raise refuse_arguments("numpy.ndarray", (dtype, shape, order, axes))
    return _build(data, dtype, shape, order)


_DTYPES = [np.dtype(code) for code in (*_NUMBERS, "S1", "U1")]

# numpy 2 renamed numpy.core to numpy._core; files of both versions must load.
ARRAY_TYPES = PickleTypes(
    names={
        "numpy.ndarray": _NDARRAY,
        **constructors(
            [
                ("numpy.dtype", _DataType),
                *(
                    (f"numpy.{core}.{name}", function)
                    for core in ("core", "_core")
                    for name, function in (
                        ("multiarray._reconstruct", _Array),
                        ("multiarray.scalar", _scalar),
                        ("numeric._frombuffer", _from_buffer),
                    )
                ),
            ]
        ),
    },
    values=frozenset({np.ndarray, *map(type, _DTYPES), *(dtype.type for dtype in _DTYPES)}),
)
