"""Python's own types in restricted pickles: containers, numbers, text, bytes, sets and ``OrderedDict``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from .types import ATOMS, PickleTypes, bytes_of, check_key, constructors, refuse_arguments


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """``_codecs.encode``, which pickles of ``bytes`` up to protocol 2 call."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise refuse_arguments("_codecs.encode", (text, encoding))
    return text.encode("latin1")


def _bytes(*arguments: object) -> bytes:
    if arguments:  # b"" is the only one that is written so
        raise refuse_arguments("bytes", arguments)
    return b""


def _bytearray(data: object = b"", encoding: object = "latin1") -> bytearray:
    if not isinstance(data, (str, bytes)) or encoding not in ("latin1", "latin-1"):
        raise refuse_arguments("bytearray", (data, encoding))
    return bytearray(bytes_of(data))


def _complex(real: object, imaginary: object) -> complex:
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise refuse_arguments("complex", (real, imaginary))
    return complex(real, imaginary)


def _items(name: str, values: object) -> list[Any]:
    if not isinstance(values, (list, tuple)):
        raise refuse_arguments(name, values)
    for value in values:
        check_key(value)
    return list(values)


def _set(values: object = ()) -> set[Any]:
    return set(_items("set", values))


def _frozenset(values: object = ()) -> frozenset[Any]:
    return frozenset(_items("frozenset", values))


def _ordered_dict(pairs: object = ()) -> OrderedDict[Any, Any]:
    if not isinstance(pairs, (list, tuple)):
        raise refuse_arguments("OrderedDict", pairs)
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise refuse_arguments("OrderedDict", pair)
        check_key(pair[0])
    return OrderedDict(pairs)


def ignore_state(instance: object, state: object) -> None:
    """Accept a state that is not needed, such as ``_metadata`` of a state dict, which is an attribute."""


def keys_and_values(mapping: Mapping[Any, Any]) -> Iterator[Any]:
    """The contents of a dictionary."""
    return chain(mapping, mapping.values())


PYTHON_TYPES = PickleTypes(
    names=constructors(
        [
            ("_codecs.encode", _encode),
            ("builtins.bytes", _bytes),
            ("builtins.bytearray", _bytearray),
            ("builtins.complex", _complex),
            ("builtins.set", _set),
            ("builtins.frozenset", _frozenset),
            ("collections.OrderedDict", _ordered_dict),
        ]
    ),
    values=ATOMS,
    contents={
        **{kind: iter for kind in (list, tuple, set, frozenset)},
        **{kind: keys_and_values for kind in (dict, OrderedDict)},
    },
    states={OrderedDict: ignore_state},
)
