"""Instructions that push a number, text or bytes, which follow in the file."""

from __future__ import annotations

import codecs
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from functools import partial

from tape.errors import quoted

from .arguments import ArgumentReader, Data, bounded_digits, counted, fixed, line, unsigned
from .types import RefusedPickleError

_INTEGER_BYTES = 1024
_INTEGER_DIGITS = 2000
_TEXT_INTEGER = re.compile(rb"[+-]?\d+L?")
_TEXT_STRING = re.compile(rb"""(?:[^\\]|\\[\\'"nrt]|\\x[0-9a-fA-F]{2})*""", re.DOTALL)
_FLOAT = struct.Struct(">d")

_utf8: Callable[[bytes], str] = bytes.decode
_latin1 = partial(str, encoding="latin1")  # a byte string of Python 2, as text with the same code points
_signed: Callable[[bytes], int] = partial(int.from_bytes, byteorder="little", signed=True)


def _long_integer(width: int) -> ArgumentReader:
    """Reader of a signed integer that follows its number of bytes."""
    read_size = unsigned(width)

    def read(data: Data, start: int) -> tuple[int, int]:
        size, first = read_size(data, start)
        if size > _INTEGER_BYTES:
            raise RefusedPickleError(f"an integer of {size} bytes")
        return fixed(size, _signed)(data, first)

    return read


def _float(data: bytes) -> float:
    return float(_FLOAT.unpack(data)[0])


def _text_integer(text: bytes) -> int:
    if text in (b"00", b"01"):  # protocol 0's booleans
        return text == b"01"
    if len(text) > _INTEGER_DIGITS or not _TEXT_INTEGER.fullmatch(text):
        raise RefusedPickleError(f"not an integer of ordinary size: {quoted(text)}")
    return int(text.rstrip(b"L"))


def _text_float(text: bytes) -> float:
    return float(bounded_digits(text))


def _text_string(text: bytes) -> str:
    text = text.strip()
    if len(text) < 2 or text[:1] not in b"'\"" or text[-1:] != text[:1] or not _TEXT_STRING.fullmatch(text):
        raise RefusedPickleError(f"not a quoted string: {quoted(text)}")
    content, _ = codecs.escape_decode(text[1:-1])
    return _latin1(content)


def _text_unicode(text: bytes) -> str:
    decoded = text.decode("raw-unicode-escape")
    decoded.encode("utf-8")  # no lone surrogates
    return decoded


LITERALS: Mapping[bytes, ArgumentReader] = {
    pickle.INT: line(_text_integer),
    pickle.LONG: line(_text_integer),
    pickle.BININT: fixed(4, _signed),
    pickle.BININT1: unsigned(1),
    pickle.BININT2: unsigned(2),
    pickle.LONG1: _long_integer(1),
    pickle.LONG4: _long_integer(4),
    pickle.FLOAT: line(_text_float),
    pickle.BINFLOAT: fixed(8, _float),
    pickle.STRING: line(_text_string),
    pickle.SHORT_BINSTRING: counted(1, _latin1),
    pickle.BINSTRING: counted(4, _latin1),
    pickle.SHORT_BINBYTES: counted(1, bytes),
    pickle.BINBYTES: counted(4, bytes),
    pickle.BINBYTES8: counted(8, bytes),
    pickle.BYTEARRAY8: counted(8, bytearray),
    pickle.UNICODE: line(_text_unicode),
    pickle.SHORT_BINUNICODE: counted(1, _utf8),
    pickle.BINUNICODE: counted(4, _utf8),
    pickle.BINUNICODE8: counted(8, _utf8),
}
