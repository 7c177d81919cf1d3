"""Bounds on what a pickle creates: while its instructions run, and on the value as its readers see it, a tree in which
shared containers count at every reference.

A few hundred bytes can otherwise hold a list of lists with 2^60 elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .types import PickleTypes, RefusedPickleError

CONSTRUCTED = 4  # a constructed object counts as this many containers, by the memory it takes
_MOST_OBJECTS = 1 << 23
# What constructors may copy, in bytes, and the number of values counted as often as they are referred to: these and a
# multiple of the file's size.
_SPARE_BYTES, _COPIES = 1 << 26, 4
_SPARE_VALUES, _REPETITIONS = 1 << 22, 64
_MOST_LEVELS = 100
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_TEXTS = (str, bytes, bytearray)
_NUMBERS = frozenset({bool, int, float, type(None)})


class Budget:
    """What the instructions of a file may still create.

    Args:
        size: number of bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self._objects = 0
        self._bytes = _SPARE_BYTES + _COPIES * size

    def count(self, objects: int = 1) -> None:
        """Account for objects, before they are made.

        Raises:
            RefusedPickleError: there are too many of them.
        """
        self._objects += objects
        if self._objects > _MOST_OBJECTS:
            raise RefusedPickleError(f"more than {_MOST_OBJECTS:,} objects")

    def charge(self, values: Iterable[Any]) -> None:
        """Account for what a constructor copies: a small pickle can pass the same bytes to a thousand of them.

        Raises:
            RefusedPickleError: it is too much.
        """
        self.count(CONSTRUCTED)
        for value in values:
            if isinstance(value, _SIZED):
                self._bytes -= len(value)
        if self._bytes < 0:
            raise RefusedPickleError("its objects are many times larger than the file")


def check_values(root: Any, types: PickleTypes, size: int) -> None:
    """Check that a value is a tree of bounded size and depth with values of these types only.

    Values, characters and bytes are counted as often as something refers to them.

    Args:
        root: the value.
        types: the allowed types.
        size: number of bytes of its pickle.

    Raises:
        RefusedPickleError: another type, a container in itself, or a bound exceeded.
    """
    most = _SPARE_VALUES + _REPETITIONS * size
    measured: dict[int, tuple[int, int]] = {}  # id of a container -> its number of values, its levels
    entered: set[int] = set()
    pending: list[tuple[Any, bool]] = [([root], False)]
    while pending:
        value, left = pending.pop()
        if left:
            entered.discard(id(value))
        elif id(value) in measured:
            continue
        elif id(value) in entered:
            raise RefusedPickleError("a container contains itself")
        content = _content(value, types)
        nested = [] if left else _nested(content, types)
        if nested:
            entered.add(id(value))
            pending.append((value, True))
            pending += [(item, False) for item in nested]
        else:
            size, levels = measured[id(value)] = _measure(content, measured)
            if size > most or levels > _MOST_LEVELS:
                raise RefusedPickleError(f"more than {most:,} values or {_MOST_LEVELS} levels of containers")


def _content(container: Any, types: PickleTypes) -> list[Any]:
    return list(types.contents[type(container)](container))


def _nested(content: list[Any], types: PickleTypes) -> list[Any]:
    """The containers among these values."""
    others = set(map(type, content)) - types.values
    for kind in others:
        if kind not in types.contents:
            raise RefusedPickleError(f"it holds an incomplete {kind.__name__}")
    return [item for item in content if type(item) in others] if others else []


def _measure(content: list[Any], measured: dict[int, tuple[int, int]]) -> tuple[int, int]:
    size, levels = 1 + len(content), 0
    if not set(map(type, content)) <= _NUMBERS:
        for item in content:
            if isinstance(item, _TEXTS):
                size += len(item)
            elif isinstance(item, np.ndarray):
                size += item.nbytes
            else:
                more, below = measured.get(id(item), (0, 0))
                size, levels = size + more, max(levels, below)
    return size, levels + 1
