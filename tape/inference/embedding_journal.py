"""Journal of embeddings: a file to which finished batches are appended, so that an interrupted run can resume.

``OUT.partial`` (``OUT.partial.1`` ... for further processes) begins with a magic number, the length of a JSON header,
and the header, which identifies model, data and options; they are written with the first batch. One record per protein
follows, little endian: crc32 of the rest, index of the protein, rows and columns of its states, size of its pooled
vector, and the float32 values. A batch is written at once, so a killed process loses at most the batch that it was
computing. The first truncated or damaged record ends the journal; the next run overwrites it.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tape.errors import ConfigError, DataError
from tape.io.file_locks import lock_file
from tape.io.json_files import parse_json
from tape.io.writing import output_errors

_MAGIC = b"PLMEMB01"
_LENGTH = struct.Struct("<I")
_RECORD = struct.Struct("<Iqiii")  # crc32 of the rest, index, rows, columns, size of the pooled vector
_LONGEST_HEADER = 1 << 20  # bytes
_SUFFIX = ".partial"

Identity = dict[str, Any]
Embedding = tuple[np.ndarray, np.ndarray]  # states (rows, columns), or their mean as one row; pooled vector


@dataclass(frozen=True)
class StoredEmbedding:
    """Where the values of a protein are stored in a journal."""

    file: Path
    offset: int
    rows: int
    columns: int
    pooled: int

    def read(self) -> Embedding:
        """Read the values: (rows, columns) and (pooled,) float32."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            values = np.fromfile(stream, dtype="<f4", count=self.rows * self.columns + self.pooled)
        return values[: self.rows * self.columns].reshape(self.rows, self.columns), values[self.rows * self.columns :]


def journal_file(out_file: Path, rank: int = 0) -> Path:
    """The journal of the process ``rank``."""
    return out_file.with_name(out_file.name + _SUFFIX + (f".{rank}" if rank else ""))


def journal_files(out_file: Path) -> list[Path]:
    """All journals of an output file, for any number of processes."""
    first = journal_file(out_file)
    found = [path for path in out_file.parent.iterdir() if path.name.startswith(first.name)]
    return sorted(path for path in found if path == first or path.name.removeprefix(f"{first.name}.").isdigit())


def read_places(out_file: Path, identity: Identity) -> dict[int, StoredEmbedding]:
    """Index -> place of every finished protein.

    Raises:
        ConfigError: a journal belongs to another model, other data or other options.
        DataError: a file with that name is not a journal.
    """
    places: dict[int, StoredEmbedding] = {}
    for path in journal_files(out_file):
        places.update(_scan(path, identity)[0])
    return places


def _scan(path: Path, identity: Identity) -> tuple[dict[int, StoredEmbedding], int]:
    """The places of one journal, and the end of its last complete record (0 without a complete header)."""
    places: dict[int, StoredEmbedding] = {}
    with path.open("rb") as stream:
        found = _read_identity(path, stream)
        if found is None:
            return places, 0
        end = stream.tell()
        left = path.stat().st_size - end  # a damaged record may state any size, for which there would be no memory
        while len(head := stream.read(_RECORD.size)) == _RECORD.size:
            checksum, index, rows, columns, pooled = _RECORD.unpack(head)
            size, left = 4 * (rows * columns + pooled), left - _RECORD.size
            offset = stream.tell()
            if min(rows, columns, pooled) < 0 or not 0 < size <= left:
                break
            values, left = stream.read(size), left - size
            if len(values) < size or zlib.crc32(values, zlib.crc32(head[_LENGTH.size :])) != checksum:
                break
            places[index] = StoredEmbedding(path, offset, rows, columns, pooled)
            end = stream.tell()
    different = sorted(name for name in found.keys() | identity.keys() if found.get(name) != identity.get(name))
    if different and places:
        raise ConfigError(
            f"{path}: unfinished embeddings of another run ({', '.join(different)} differ); remove it to start over,"
            " or choose another output file"
        )
    return places, 0 if different else end  # without embeddings, the journal of another run has no value


def _read_identity(path: Path, stream: IO[bytes]) -> Identity | None:
    """The header; None if it is incomplete."""
    start = stream.read(len(_MAGIC) + _LENGTH.size)
    if len(start) < len(_MAGIC) + _LENGTH.size:
        return None  # the process was killed while it wrote the header
    if not start.startswith(_MAGIC):
        raise DataError(f"{path}: not a journal of embeddings; move it away")
    (size,) = _LENGTH.unpack(start[len(_MAGIC) :])
    text = stream.read(size) if size <= _LONGEST_HEADER else b"too long"
    if len(text) < size <= _LONGEST_HEADER:
        return None
    try:
        found = parse_json(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path}: its header is damaged; remove it to start over")
    return found


class EmbeddingJournal:
    """The journal of one process, open for appending; a context manager.

    Args:
        path: the file, created if it does not exist; a truncated record at its end is removed.
        identity: identity of the run.

    Raises:
        ConfigError: the journal is that of another run, or another process is writing it.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self._stream = path.open("ab")
        try:
            lock_file(self._stream, path, "let no other command write these embeddings", wait=False)
            end = _scan(path, identity)[1]
        except BlockingIOError as error:
            self._stream.close()
            raise ConfigError(f"{path}: another process is writing these embeddings") from error
        except BaseException:
            self._stream.close()
            raise
        self._stream.truncate(end)
        self._header = b""  # to be written
        if end == 0:
            text = json.dumps(identity, sort_keys=True).encode()
            self._header = _MAGIC + _LENGTH.pack(len(text)) + text

    def append(self, batch: Iterable[tuple[int, Embedding]]) -> None:
        """Append a batch of (index, embedding) with a single write."""
        blocks = []
        for index, (states, pooled) in batch:
            body = b"".join(np.ascontiguousarray(values, dtype="<f4").tobytes() for values in (states, pooled))
            head = _RECORD.pack(0, index, *states.shape, pooled.size)[_LENGTH.size :]
            blocks.append(_LENGTH.pack(zlib.crc32(body, zlib.crc32(head))) + head + body)
        data = self._header + b"".join(blocks)
        with output_errors(self.path, len(data)):
            self._stream.write(data)
            self._stream.flush()
        self._header = b""

    def __enter__(self) -> EmbeddingJournal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with output_errors(self.path):
                    os.fsync(self._stream.fileno())
        finally:
            with suppress(OSError):  # close writes the buffered rest again, after an error that has been raised
                self._stream.close()
            if self.path.stat().st_size == 0:  # nothing to resume
                self.path.unlink()
