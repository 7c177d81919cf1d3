"""Reading JSON objects from files, with errors that name the file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ProteinLMError, quoted

_LARGEST_INTEGER = 1 << 53  # a float has every integer up to this one


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
    """Read a file with one JSON object per line; blank lines are skipped.

    Args:
        path: the file.
        error: class of the error to raise.
        integers: fields that every object must have, as integers of at most 53 bits.

    Raises:
        ProteinLMError: of class ``error``, as in :func:`read_json_object`, or an integer is missing. Names file and
            line, from 1.
    """
    objects = []
    for number, line in enumerate(_text(Path(path), error).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        content = _object(line, where, error)
        for name in integers:
            value = content.get(name)
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST_INTEGER:
                raise error(f"{where}: {name} must be an integer, not {quoted(value)}")
        objects.append(content)
    return objects


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
        content = json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise error(f"{where}: not valid JSON ({reason})") from reason
    if not isinstance(content, dict):
        raise error(f"{where}: holds a {type(content).__name__}, not a JSON object")
    return content
