"""Reading JSON objects from files, with errors that name the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ProteinLMError


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
    path: str | os.PathLike[str], error: type[ProteinLMError] = CheckpointError
) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; blank lines are skipped.

    Raises:
        ProteinLMError: of class ``error``, as in :func:`read_json_object`. Names file and line, from 1.
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
