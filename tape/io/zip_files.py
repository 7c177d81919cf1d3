"""Zip files of untrusted origin: what reading a damaged one raises, and the CRCs of their records."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from tape.errors import CheckpointError, quoted

_MAGIC = b"PK\x03\x04"
_BLOCK_BYTES = 1 << 20
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(ArithmeticError, LookupError, RuntimeError, ValueError),
)
"""What reading a damaged zip file can raise, beside OSError. RuntimeError includes NotImplementedError (compressed or
encrypted records), ArithmeticError includes OverflowError (records at positions beyond 2^63)."""


def is_zip(path: Path) -> bool:
    """Whether a file of ``torch.save`` is a zip file, by its first bytes, as torch itself decides.

    Files of the older format (torch before 1.6) have no checksums.
    """
    with path.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def verify_crcs(path: Path) -> None:
    """Compare the records of a zip file of ``torch.save`` with their CRC-32, which ``torch.load`` does not do.

    Raises:
        CheckpointError: a record, or the directory of the records, is damaged, or records are compressed or overlap.
            Names file and record.
    """
    try:
        with path.open("rb") as stream:
            verify_stream_crcs(stream, str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error})") from error


def verify_stream_crcs(stream: IO[bytes], name: str) -> None:
    """:func:`verify_crcs` of an open zip file.

    Args:
        stream: the file, which can be sought.
        name: what messages call it.

    Raises:
        CheckpointError: as :func:`verify_crcs`.
        OSError: it can't be read.
    """
    where = ""
    try:
        with zipfile.ZipFile(stream) as archive:
            left = stream.seek(0, os.SEEK_END)
            for record in archive.infolist():
                where = f"record {quoted(record.filename)}"
                left -= record.compress_size
                if record.compress_type != zipfile.ZIP_STORED or left < 0:  # reading could take any time
                    raise zipfile.BadZipFile("compressed, or records overlap; torch.save writes neither")
                with archive.open(record) as content:
                    while content.read(_BLOCK_BYTES):
                        pass
    except ZIP_ERRORS as error:
        if not where:
            problem = "truncated or damaged: the directory of its records, at its end, can't be read"
        else:
            problem = f"damaged: {where} does not pass its check"
        raise CheckpointError(f"{name}: {problem} ({error})") from error
