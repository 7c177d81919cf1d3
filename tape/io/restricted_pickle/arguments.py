"""Arguments of instructions: the bytes that follow an instruction's code, read within the bounds of the file."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from .types import RefusedPickleError

Data: TypeAlias = "bytes | mmap.mmap"
# Takes the file and the position of an argument; returns the argument and the position after it.
ArgumentReader: TypeAlias = Callable[[Data, int], tuple[Any, int]]

_LONGEST_NUMBER = 2000  # digits
_LARGEST_INDEX = (1 << 32) - 1


def end_of(data: Data, start: int, size: int) -> int:
    """The position after ``size`` bytes at ``start``, a number that the file declares.

    Raises:
        RefusedPickleError: the file ends before.
    """
    end = start + size
    if end > len(data):
        left = len(data) - start
        raise RefusedPickleError(f"truncated: {size} bytes are declared at byte {start}, {left} are left")
    return end


def fixed(width: int, decode: Callable[[bytes], Any]) -> ArgumentReader:
    """Reader of a value of ``width`` bytes."""

    def read(data: Data, start: int) -> tuple[Any, int]:
        end = end_of(data, start, width)
        return decode(data[start:end]), end

    return read


def counted(width: int, decode: Callable[[bytes], Any]) -> ArgumentReader:
    """Reader of a value that follows its number of bytes, an unsigned integer of ``width`` bytes."""
    read_size = unsigned(width)

    def read(data: Data, start: int) -> tuple[Any, int]:
        size, first = read_size(data, start)
        end = end_of(data, first, size)
        return decode(data[first:end]), end

    return read


def unsigned(width: int) -> ArgumentReader:
    """Reader of an unsigned integer of ``width`` bytes."""
    return _byte if width == 1 else fixed(width, partial(int.from_bytes, byteorder="little"))


def _byte(data: Data, start: int) -> tuple[int, int]:
    return data[start], start + 1


def line(decode: Callable[[bytes], Any]) -> ArgumentReader:
    """Reader of a value that ends with its line, as in protocol 0."""

    def read(data: Data, start: int) -> tuple[Any, int]:
        end = data.find(b"\n", start)
        if end < 0:
            raise RefusedPickleError(f"truncated: the line at byte {start} does not end")
        return decode(data[start:end]), end + 1

    return read


def two_lines(data: Data, start: int) -> tuple[tuple[str, str], int]:
    """Read a module and a name in it."""
    read = line(bytes.decode)
    module, middle = read(data, start)
    name, end = read(data, middle)
    return (module, name), end


def frame(data: Data, start: int) -> tuple[int, int]:
    """Read the size of a frame, which must be within the file. Frames have no meaning here."""
    size, end = unsigned(8)(data, start)
    if size > len(data) - end:
        raise RefusedPickleError(f"truncated: a frame of {size} bytes is declared at byte {end}")
    return size, end


def bounded_digits(text: bytes) -> bytes:
    """The beginning of a number in decimal digits, whose conversion takes quadratic time."""
    return text[:_LONGEST_NUMBER]


def memo_index(text: bytes) -> int:
    """A decimal index of the memo; larger ones have computable hash collisions, as keys of dictionaries do."""
    index = int(bounded_digits(text))
    if not 0 <= index <= _LARGEST_INDEX:
        raise RefusedPickleError("an index of its memo is out of range")
    return index
