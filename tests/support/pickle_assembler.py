"""Writes pickles instruction by instruction, as no pickler would."""

from __future__ import annotations

import struct


def name(module: str, attribute: str) -> bytes:
    """GLOBAL: push what a module has under a name."""
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def raw_protocol_2(value: bytes) -> bytes:
    """``bytes`` as protocol 2, and torch.save with it, writes them."""
    return call(name("_codecs", "encode"), text(value.decode("latin1")), text("latin1"))


def integer(value: int) -> bytes:
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def list_of(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def dict_of(*items: bytes) -> bytes:
    """Keys and values by turns."""
    return b"}(" + b"".join(items) + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    """REDUCE: call what ``function`` pushes."""
    return function + tuple_of(*arguments) + b"R"


def build(instance: bytes, state: bytes) -> bytes:
    """BUILD: set the state of what ``instance`` pushes."""
    return instance + state + b"b"


def doubled(times: int, pair: bytes = b"](%be", first: bytes = b"]") -> bytes:
    """A container nested ``times`` deep, each level with the one below it twice: 2^times in a few bytes a level.

    Args:
        times: number of levels.
        pair: instructions for a level, with ``%b`` for the two items.
        first: the lowest level.
    """
    levels = [first + b"q\x00"]
    for level in range(times):
        get = b"h" + bytes([level])
        levels.append(b"0" + pair % (get + get) + b"q" + bytes([level + 1]))
    return b"".join(levels)


NONE = b"N"
TRUE = b"\x88"
FALSE = b"\x89"


def pickled(*instructions: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + b"".join(instructions) + b"."
