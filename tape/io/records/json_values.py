"""JSON objects: one per line (.jsonl); in one list, or one after the other (.json). Read as a stream in both cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import IO, Any

from tape.errors import DataError
from tape.io.text_files import LONGEST_LINE, check_text

from .record import Row

_BLOCK_CHARACTERS = 1 << 20


def jsonl_rows(stream: IO[str], name: str) -> Iterator[Row]:
    """Rows of a .jsonl file. Empty lines are skipped."""
    return _rows(_line_values(stream, name), name)


def json_rows(stream: IO[str], name: str) -> Iterator[Row]:
    """Rows of a .json file."""
    return _rows(_values(stream, name), name)


def _rows(values: Iterator[Any], name: str) -> Iterator[Row]:
    for number, value in enumerate(values, start=1):
        where = f"{name}, record {number}"
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
        yield Row(value, where)


def _line_values(stream: IO[str], name: str) -> Iterator[Any]:
    record = 0
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        record += 1
        if not line.isascii():
            check_text(line, f"{name}, line {number}")
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            check_text(line, f"{name}, line {number}")
            raise DataError(f"{name}, record {record}: not valid JSON: {error}") from error
        except (ValueError, RecursionError) as error:  # a number with thousands of digits, thousands of nested lists
            raise DataError(f"{name}, record {record}: JSON that can't be read: {error}") from error


def _values(stream: IO[str], name: str) -> Iterator[Any]:
    """Consecutive JSON values or the elements of one list, without reading the entire file into memory."""
    window = _JsonWindow(stream, name)
    listed = window.skip(" \t\r\n") == "["
    if listed:
        window.position += 1
    for number in count(start=1):
        rest = window.skip(" \t\r\n,")
        if rest == ("]" if listed else ""):
            return
        try:
            yield window.next_value()
        except json.JSONDecodeError as error:
            raise DataError(f"{name}, record {number}: not valid JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:  # a number with thousands of digits, thousands of nested lists
            raise DataError(f"{name}, record {number}: JSON that can't be read: {error}") from error


class _JsonWindow:
    """A sliding window over the text that is being decoded. It grows only if a value reaches its end.

    It doubles when it grows, so that decoding a long value takes time in proportion to its length.
    """

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream, self._name = stream, name
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._ended = False
        self._lines = 1
        self.position = 0

    def skip(self, characters: str) -> str:
        """Skip ``characters``; return the first character after them, ``""`` at the end."""
        while True:
            while self.position < len(self._text) and self._text[self.position] in characters:
                self.position += 1
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._read():
                return ""

    def next_value(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self.position)
                if end < len(self._text) or not self._read():  # "12" at the end of the window may be the start of "123"
                    self.position = end
                    return value
            except json.JSONDecodeError:
                if len(self._text) - self.position > LONGEST_LINE or not self._read():
                    raise

    def _read(self) -> bool:
        if self._ended:
            return False
        rest = self._text[self.position :]
        block = self._stream.read(max(_BLOCK_CHARACTERS, len(rest)))
        if "\0" in block or not block.isascii():
            for number, line in enumerate(block.splitlines(), start=self._lines):
                check_text(line, f"{self._name}, line {number}")
        self._lines += block.count("\n")
        self._text, self.position = rest + block, 0
        self._ended = not block
        return not self._ended
