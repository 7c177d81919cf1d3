"""What a restricted pickle may name and contain: constructors that check their arguments, values, keys.

Even functions of well-known libraries are not safe to call with arguments from a file: ``numpy.ndarray`` with the data
type ``object`` takes any bytes for pointers. So a name in a pickle never stands for the object that it names, but for a
:class:`Constructor`, an :class:`Unfinished` value or a constant defined here.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tape.errors import quoted

# Integers of larger size have computable hash collisions; a dictionary of them takes quadratic time.
_KEY_BITS = 60
_LONGEST_KEY = 16  # elements of a tuple
_TEXT_KEYS: frozenset[type] = frozenset({str, bytes, bool, float, type(None)})
ATOMS: frozenset[type] = frozenset({*_TEXT_KEYS, int, complex, bytearray})
_BYTES = (bytes, bytearray)


class RefusedPickleError(pickle.UnpicklingError):
    """A pickle is damaged, or holds something else than data. Nothing in it was executed."""


class ForbiddenNameError(RefusedPickleError):
    """A pickle refers to a name that is not allowed.

    Attributes:
        name: the name, with Python 3's module names.
    """

    def __init__(self, name: str) -> None:
        self.name = name if len(name) <= 200 and name.replace(".", "").isidentifier() else quoted(name)
        super().__init__(f"it refers to {self.name}, which plain data does not need and which could run code")


@dataclass(frozen=True, eq=False)
class Name:
    """Stands for a class that appears only as an argument, such as ``numpy.ndarray``."""

    name: str


@dataclass(frozen=True, eq=False)
class Constructor(Name):
    """Stands for a class or function that a pickle names; not callable itself.

    Attributes:
        name: ``module.name``.
        build: makes the value from the arguments in the file, which it must check. The result is a value of plain
            types, or an :class:`Unfinished` one.
    """

    build: Callable[..., Any]


class Unfinished:
    """An object between its construction and the state that completes it.

    It never becomes part of the result: the value made by :meth:`finish` takes its place. (Not an ABC, for which
    ``isinstance``, called for every reference to the memo, takes several times as long.)
    """

    value: Any = None
    finished = False

    def finish(self, state: Any) -> Any:
        """Make the value from its state, which comes from the file and must be checked."""
        raise NotImplementedError


@dataclass(frozen=True)
class PickleTypes:
    """What a pickle may contain.

    Attributes:
        names: ``module.name`` with Python 3's module names -> a :class:`Constructor`, a :class:`Name` or a constant.
        values: types of values other than containers, compared exactly.
        contents: type of a container -> function that gives the values in one.
        keys: those of ``values`` that may be keys of dictionaries.
        states: type -> function that applies a state to an object of this type, for types complete without it.
    """

    names: Mapping[str, object] = field(default_factory=dict)
    values: frozenset[type] = frozenset()
    contents: Mapping[type, Callable[[Any], Iterable[Any]]] = field(default_factory=dict)
    keys: frozenset[type] = frozenset()
    states: Mapping[type, Callable[[Any, Any], None]] = field(default_factory=dict)

    def __or__(self, other: PickleTypes) -> PickleTypes:
        return PickleTypes(
            {**self.names, **other.names},
            self.values | other.values,
            {**self.contents, **other.contents},
            self.keys | other.keys,
            {**self.states, **other.states},
        )


def constructors(functions: Iterable[tuple[str, Callable[..., Any]]]) -> dict[str, Constructor]:
    """Entries of :attr:`PickleTypes.names`."""
    return {name: Constructor(name, function) for name, function in functions}


def check_key(key: object, others: frozenset[type] = frozenset()) -> None:
    """Refuse keys whose hash is slow or predictable: nested tuples, huge integers, complex numbers.

    Raises:
        RefusedPickleError: the key is not text, a number of ordinary size, a short tuple of text, or of ``others``.
    """
    kind = type(key)
    if kind in _TEXT_KEYS or kind in others or (isinstance(key, np.generic) and key.dtype.kind != "c"):
        return
    if isinstance(key, int) and key.bit_length() <= _KEY_BITS:
        return
    if isinstance(key, tuple) and len(key) <= _LONGEST_KEY and {*map(type, key)} <= _TEXT_KEYS | others:
        return
    raise RefusedPickleError(f"{described(key)} is not an allowed key")


def described(value: object) -> str:
    """A short text for a value that was not checked yet: atoms and names themselves, the types of all others."""
    if isinstance(value, Name):
        return value.name
    if type(value) in ATOMS:
        return quoted(value)
    if isinstance(value, tuple):
        return f"({', '.join(quoted(part) if type(part) in ATOMS else type(part).__name__ for part in value[:8])})"
    return f"a {type(value).__name__}"


def refuse_arguments(name: str, arguments: object) -> RefusedPickleError:
    """The error for arguments that no pickler writes."""
    return RefusedPickleError(f"{name} has unexpected arguments: {described(arguments)}")


def bytes_of(data: object) -> bytes:
    """Bytes, a bytearray, or text of a Python 2 pickle, which stands for bytes.

    Raises:
        RefusedPickleError: something else.
    """
    if isinstance(data, _BYTES):
        return bytes(data)
    if isinstance(data, str):
        return data.encode("latin1")
    raise RefusedPickleError(f"expected bytes, found {described(data)}")


def is_size(value: object) -> bool:
    """Whether a value is a non-negative integer of at most 62 bits."""
    return type(value) is int and 0 <= value < 1 << 62
