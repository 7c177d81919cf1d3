"""Bounds on the value of a pickle as readers see it: a tree, in which shared containers count at every reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from .types import PickleTypes, RefusedPickleError

_MOST_LEVELS = 100
_TEXTS = (str, bytes, bytearray)
_NUMBERS = frozenset({bool, int, float, type(None)})


def check_values(root: Any, types: PickleTypes, most: int) -> None:
    """Check that a value is a tree of bounded size and depth with values of these types only.

    Args:
        root: the value.
        types: the allowed types.
        most: number of values, characters and bytes, counted as often as something refers to them.

    Raises:
        RefusedPickleError: another type, a container in itself, or a bound exceeded.
    """
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
