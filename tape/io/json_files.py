"""JSON objects from files that others wrote: read, checked for being objects, and refused in one way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ProteinLMError


def read_json_object(path: str | os.PathLike[str], error: type[ProteinLMError] = CheckpointError) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
        path: the file.
        error: what is raised, ``DataError`` where the file is part of a data set.

    Raises:
        ProteinLMError: ``error``; the file can't be read, isn't JSON, or holds something else; names the file.
    """
    return _object(_text(Path(path), error), str(path), error)


def read_json_lines(
    path: str | os.PathLike[str], error: type[ProteinLMError] = CheckpointError
) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line; blank lines are passed over.

    Raises:
        ProteinLMError: ``error``, as :func:`read_json_object`; names the line, from 1.
    """
    lines = enumerate(_text(Path(path), error).split("\n"), start=1)
    return [_object(line, f"{path}, line {number}", error) for number, line in lines if line.strip()]


def _text(path: Path, error: type[ProteinLMError]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as reason:
        raise error(f"{path}: {reason.strerror or reason}") from reason
    except UnicodeDecodeError as reason:
        raise error(f"{path}: not a JSON file ({reason})") from reason


def _object(text: str, where: str, error: type[ProteinLMError]) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise error(f"{where}: not valid JSON ({reason})") from reason
    if not isinstance(content, dict):
        raise error(f"{where}: holds a {type(content).__name__}, not a JSON object")
    return content
