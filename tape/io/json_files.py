"""Reading JSON, with errors that name the file.

All JSON that is read as data or configuration is parsed by :func:`parse_json`, which refuses repeated keys: Python's
own parser keeps the last value of a key without a notice (RFC 8259, section 4, leaves the meaning open).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ProteinLMError, quoted

_LARGEST_INTEGER = 1 << 53  # a float has every integer up to this one


class RepeatedKeyError(ValueError):
    """A JSON object has a key twice."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The ``object_pairs_hook`` of :mod:`json` that refuses repeated keys.

    Raises:
        RepeatedKeyError: names the key.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        (repeated, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise RepeatedKeyError(f"the key {quoted(repeated)} is repeated; remove one of its values")
    return content


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not valid JSON, a number has thousands of digits, a text has half of a surrogate pair (which
            no file could store), or (``RepeatedKeyError``) an object has a key twice.
        RecursionError: it has thousands of nested lists.
    """
    content = json.loads(text, object_pairs_hook=unique_keys)
    # only an escape, or bytes, from which json.loads decodes them, can have half of a pair
    if "\\u" in text if isinstance(text, str) else b"\\u" in text or not text.isascii():
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a text has half of a surrogate pair, {error.object[error.start]!r}") from error
    return content


def read_json_object(path: str | os.PathLike[str], error: type[ProteinLMError] = CheckpointError) -> dict[str, Any]:
    """Read a file that contains one JSON object.

    Args:
        path: the file.
        error: class of the error to raise, such as ``DataError`` for a file of a data set.

    Raises:
        ProteinLMError: of class ``error``: the file can't be read, is not JSON, or contains something other than an
            object. Names the file.
    """
    return _object(_text(Path(path), error), str(path), error)


def read_json_lines(
    path: str | os.PathLike[str], error: type[ProteinLMError] = CheckpointError, integers: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; see :func:`iterate_json_lines`."""
    return list(iterate_json_lines(path, error, integers))


def iterate_json_lines(
    path: str | os.PathLike[str], error: type[ProteinLMError] = CheckpointError, integers: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """The objects of a file with one JSON object per line, read one by one; blank lines are skipped.

    Args:
        path: the file.
        error: class of the error to raise.
        integers: fields that every object must have, as integers of at most 53 bits.

    Raises:
        ProteinLMError: of class ``error``, as in :func:`read_json_object`, or an integer is missing. Names file and
            line, from 1.
    """
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _line_object(line, f"{path}, line {number}", error, integers)
    except OSError as reason:
        raise error(f"{path}: {reason.strerror or reason}") from reason


def _line_object(line: bytes, where: str, error: type[ProteinLMError], integers: Sequence[str]) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{where}: not UTF-8 text, so not JSON ({reason.reason})") from reason
    content = _object(text, where, error)
    for name in integers:
        value = content.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST_INTEGER:
            raise error(f"{where}: {name} must be an integer, not {quoted(value)}")
    return content


def _text(path: Path, error: type[ProteinLMError]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as reason:
        raise error(f"{path}: {reason.strerror or reason}") from reason
    except UnicodeDecodeError as reason:
        line = reason.object[: reason.start].count(b"\n") + 1
        raise error(f"{path}, line {line}: not UTF-8 text, so not JSON ({reason.reason})") from reason


def _object(text: str, where: str, error: type[ProteinLMError]) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as reason:
        raise error(f"{where}: not valid JSON ({reason})") from reason
    if not isinstance(content, dict):
        raise error(f"{where}: holds a {type(content).__name__}, not a JSON object")
    return content
