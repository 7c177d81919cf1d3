"""``prepared.json``: which files and options a prepared folder was made from, and what was written.

It is an object {"version", "provenance", "splits"}; the entry of a split has "made_from", "written" (names, sizes and
SHA-256 sums of its files), "records" and "substitutions".
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tape.errors import ConfigError, DataError, listed
from tape.io.checksums import sha256_of
from tape.io.json_files import read_json_object
from tape.io.text_files import data_file, file_size

STATE_FILE = "prepared.json"
STATE_VERSION = 1


def fingerprint(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 sum of a file (of ``data.mdb`` for an LMDB directory)."""
    return {"name": path.name, "bytes": file_size(path), "sha256": sha256_of(data_file(path))}


def read_json_if_any(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none."""
    with suppress(DataError):
        return read_json_object(path, DataError)
    return None


def is_state(content: Mapping[str, Any]) -> bool:
    """Whether the content of a state file is of this version, with the fields that this command writes."""
    splits = content.get("splits")
    return (
        content.get("version") == STATE_VERSION
        and isinstance(content.get("provenance"), dict)
        and isinstance(splits, dict)
        and all(isinstance(entry, dict) and _is_entry(entry) for entry in splits.values())
    )


def _is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether it has the fields of a split."""
    substitutions = entry.get("substitutions")
    return (
        isinstance(entry.get("made_from"), dict)
        and isinstance(substitutions, dict)
        and all(type(number) is int for number in (entry.get("records"), *substitutions.values()))
    )


def check_replacement(folder: Path, split: str, before: Mapping[str, Any], made_from: Mapping[str, Any]) -> None:
    """Refuse to replace a split by one of a file with another name.

    Raises:
        ConfigError: names both files.
    """
    old, new = ([file["name"] for file in entry.get("files", ())] for entry in (before, made_from))
    if old != new:
        raise ConfigError(
            f"{folder}: {split} was made from {listed(old)}, which {listed(new)} would replace; end the file's name in"
            " its split, such as _valid, choose another TARGET, or write the folder again with --overwrite"
        )
