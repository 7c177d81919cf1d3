"""The conversion record, ``conversion.json``: what was converted, from which files, and how it was verified.

Its hashes of the result's files are verified when the result is converted again, unless ``SHA256SUMS`` beside it, which
is verified on every loading, covers them.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from converter.formats.base import Source
from converter.formats.model_files import file_hashes
from converter.mapping.rules import Mapped
from converter.mapping.tables import TOKEN_TYPES
from converter.verify.certificate import Certificate
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, quoted
from tape.io.checksums import SUMS_NAME, sha256_of
from tape.io.json_files import read_json_object
from tape.io.timestamps import utc_now
from tape.io.writing import write_json

RECORD_NAME = "conversion.json"
RECORD_FORMAT = "proteinlm-conversion"
RECORD_VERSION = 2
_READ_VERSIONS = (1, 2)
UNCHANGED, CHANGED, MISSING = "unchanged", "damaged, or changed since the conversion", "missing"


def write_record(
    path: Path,
    origin: Mapping[str, Any],
    config: ProteinBertConfig,
    result: Source,
    mapped: Mapped,
    certificate: Certificate,
    dtype: torch.dtype,
) -> None:
    """Write the record beside the files of the result.

    Args:
        path: the file to write; the hashes are of the other files in its directory.
        origin: provenance of the source.
        config: configuration of the source.
        result: the written model.
        mapped: the mapped state dict, with what was dropped and filled in.
        certificate: the comparison of source and result.
        dtype: data type of the written weights.
    """
    folder = path.parent
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS_NAME)
    hashes = {Path(file).relative_to(folder).as_posix(): entry for file, entry in file_hashes(files).items()}
    written = config.to_dict() | {"type_vocab_size": mapped.state[TOKEN_TYPES].shape[0]}  # of Megatron Core, perhaps 2
    record = {
        "format": RECORD_FORMAT,
        "version": RECORD_VERSION,
        "date": utc_now(),
        "result": {"kind": result.kind, "files": hashes, "config": written},
        "dropped": mapped.dropped,
        "filled": mapped.filled,
        "lm_head": result.has_head,
        "certificate": certificate.as_json(),
        "versions": _versions(),
        "source": origin,
        "dtype": str(dtype),
    }
    write_json(path, record)


def verify_recorded_files(source: Path) -> None:
    """Compare the files of an earlier conversion's result with the hashes in its record, if it has one.

    Args:
        source: a model directory or weights file.

    Raises:
        CheckpointError: a file is missing or differs; the message names it and the record. Or the record is damaged.
    """
    record = _find_record(source)
    if record is None or (record.parent / SUMS_NAME).is_file():
        return
    for name, state in _states(record, "result", record.parent):
        if state != UNCHANGED:
            raise CheckpointError(
                f"{record.parent / name}: {state}, according to {record.name} of its conversion; convert or copy it"
                f" again, give --no-verify, or remove {record.name}"
            )


def check_files(result: Path) -> Iterator[str]:
    """Compare all files in the record of a conversion, the source's included, with their hashes.

    Args:
        result: a converted directory or weights file.

    Yields:
        A line for each file. Files of the source that no longer exist are no error.

    Raises:
        CheckpointError: after all lines, if a file differs or one of the result is missing; or there is no record.
    """
    record = _find_record(result)
    if record is None:
        raise CheckpointError(f"{result}: has no {RECORD_NAME}, which the converter writes beside its results")
    damaged = []
    for part, directory in (("result", record.parent), ("source", Path())):
        for name, state in _states(record, part, directory):
            yield f"{part}: {name}: {state}"
            if state == CHANGED or (state == MISSING and part == "result"):
                damaged.append(name)
    if damaged:
        raise CheckpointError(f"{record}: {len(damaged)} of the files that it lists differ: {', '.join(damaged[:4])}")


def _find_record(path: Path) -> Path | None:
    """The record of a converted directory, of the directory above (for ``release``), or of a single weights file."""
    candidates = (path / RECORD_NAME, path.with_name(f"{path.stem}.{RECORD_NAME}"), path.parent / RECORD_NAME)
    for record in candidates:
        if record.is_file() and read_json_object(record).get("format") == RECORD_FORMAT:
            files = _recorded_hashes(record, "result")
            if record.parent == path or any((record.parent / name).is_relative_to(path) for name in files):
                return record
    return None


def _recorded_hashes(record: Path, part: str) -> dict[str, str]:
    """SHA-256 by path of the files of ``result`` (relative to the record) or ``source``."""
    content = read_json_object(record)
    if content.get("version") not in _READ_VERSIONS:
        raise CheckpointError(
            f"{record}: has version {quoted(content.get('version'))}; this converter reads {_READ_VERSIONS}"
        )
    try:
        hashes = {str(name): str(entry["sha256"]) for name, entry in content[part]["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{record}: has no SHA-256 of the files of its {part} ({error!r})") from error
    outside = [name for name in hashes if part == "result" and (Path(name).is_absolute() or ".." in Path(name).parts)]
    if outside:
        raise CheckpointError(f"{record}: lists {quoted(outside[0])}, which is not in its directory")
    return hashes


def _states(record: Path, part: str, directory: Path) -> Iterator[tuple[str, str]]:
    """The name and the state of each file of ``result`` or ``source``; names are relative to ``directory``."""
    for name, expected in _recorded_hashes(record, part).items():
        file = directory / name
        if not file.is_file():
            yield name, MISSING
        else:
            yield name, UNCHANGED if sha256_of(file) == expected else CHANGED


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages used, if installed."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "safetensors", "transformers"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
