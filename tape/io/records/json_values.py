"""JSON objects: one per line (.jsonl); in one list, or one after the other (.json). Read as a stream in both cases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import IO, Any

from tape.errors import DataError
from tape.io.json_files import parse_json, unique_keys
from tape.io.text_files import LONGEST_LINE, check_text

from .record import Row

_BLOCK_CHARACTERS = 1 << 20
_LONGEST_TOKEN = 16  # of true, -Infinity and \\u0000
_BLANKS = re.compile(r"[ \t\r\n]*")
_BLANKS_AND_COMMAS = re.compile(r"[ \t\r\n,]*")


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
            yield parse_json(line)
        except json.JSONDecodeError as error:
            check_text(line, f"{name}, line {number}")
            raise DataError(f"{name}, record {record}: not valid JSON: {error}") from error
        except (ValueError, RecursionError) as error:  # a number with thousands of digits, thousands of nested lists
            raise DataError(f"{name}, record {record}: JSON that can't be read: {error}") from error


def _values(stream: IO[str], name: str) -> Iterator[Any]:
    """Consecutive JSON values or the elements of one list, without reading the entire file into memory."""
    window = _JsonWindow(stream, name)
    listed = window.skip(_BLANKS) == "["
    if listed:
        window.position += 1
    for number in count(start=1):
        rest = window.skip(_BLANKS_AND_COMMAS)
        if rest == ("]" if listed else ""):
            if listed:
                window.check_end(name)
            return
        try:
            yield window.next_value(f"{name}, record {number}")
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
        self._decoder = json.JSONDecoder(object_pairs_hook=unique_keys)
        self._text = ""
        self._ended = False
        self._lines = 1
        self.position = 0

    def skip(self, characters: re.Pattern[str]) -> str:
        """Skip ``characters``; return the first character after them, ``""`` at the end."""
        while True:
            found = characters.match(self._text, self.position)
            self.position = found.end() if found else self.position
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._read():
                return ""

    def next_value(self, where: str) -> Any:
        """Decode the value at the position; ``where`` is file and record for messages.

        Raises:
            DataError: it is longer than :data:`tape.io.text_files.LONGEST_LINE`.
            ValueError, RecursionError: it is not valid.
        """
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self.position)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error):
                    raise
                self._check_length(len(self._text), where)
                if not self._read():
                    raise
                continue
            self._check_length(end, where)
            if end < len(self._text) or not self._read():  # "12" at the end of the window may be the start of "123"
                self.position = end
                return value

    def check_end(self, where: str) -> None:
        """Check that nothing follows the closing bracket of a list at the position.

        Raises:
            DataError: something does. Otherwise its records would be lost.
        """
        self.position += 1
        if self.skip(_BLANKS):
            raise DataError(
                f"{where}: text follows the list of records; a file has one list, or records without a list around them"
            )

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the text that follows could make the value valid: it is wrong at the end of the window."""
        return error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_TOKEN

    def _check_length(self, end: int, where: str) -> None:
        if end - self.position > LONGEST_LINE:
            raise DataError(f"{where}: longer than {LONGEST_LINE:,} characters, which no record is")

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
