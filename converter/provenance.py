"""Facts about files and arguments in a form that JSON holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tape.file_hashes import sha256_of


def file_hashes(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file, by path."""
    return {str(file): {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files}


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with what JSON can't hold (dtypes, paths) as text."""
    plain = (str, int, float, bool, type(None))
    return {str(key): value if isinstance(value, plain) else str(value) for key, value in sorted(values.items())}
