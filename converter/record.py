"""The conversion record, ``conversion.json``: what was converted, from which files, and how it was verified."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from converter.formats.base import Source
from converter.formats.model_files import file_hashes
from converter.mapping.rules import Mapped
from converter.verify.certificate import Certificate
from tape.configs import ProteinBertConfig
from tape.io.atomic import write_json

RECORD_NAME = "conversion.json"
RECORD_FORMAT = "proteinlm-conversion"
RECORD_VERSION = 2


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
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {Path(file).relative_to(folder).as_posix(): entry for file, entry in file_hashes(files).items()}
    record = {
        "format": RECORD_FORMAT,
        "version": RECORD_VERSION,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "result": {"kind": result.kind, "files": hashes, "config": config.to_dict()},
        "dropped": mapped.dropped,
        "filled": mapped.filled,
        "lm_head": result.has_head,
        "certificate": certificate.as_json(),
        "versions": _versions(),
        "source": origin,
        "dtype": str(dtype),
    }
    write_json(path, record)


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages used, if installed."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "safetensors", "transformers"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
