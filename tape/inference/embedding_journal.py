"""Embeddings on their way: files to which finished batches are appended, so that a broken-off run goes on.

``OUT.partial`` (``OUT.partial.1`` ... of further processes) begins with a magic, the length of a JSON header and the
header, which says of what model, data and options it is. Then one record a protein, little endian: crc32 of the rest,
index of the protein, rows and columns of its states, size of its pooled vector, and the float32 values. A batch is one
write: a killed process loses at most the batch that it was computing. A record that is torn or damaged ends the file;
the next run writes on from there.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tape.errors import ConfigError, DataError

_MAGIC = b"PLMEMB01"
_LENGTH = struct.Struct("<I")
_RECORD = struct.Struct("<Iqiii")  # crc32 of what follows it, index, rows, columns, size of the pooled vector
_SUFFIX = ".partial"

Identity = dict[str, Any]
Embedding = tuple[np.ndarray, np.ndarray]  # states (rows, columns), or their mean in one row; pooled vector, maybe (0,)


@dataclass(frozen=True)
class Place:
    """Where a protein's values stand."""

    file: Path
    offset: int
    rows: int
    columns: int
    pooled: int

    def read(self) -> Embedding:
        """(rows, columns) and (pooled,) float32."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            values = np.fromfile(stream, dtype="<f4", count=self.rows * self.columns + self.pooled)
        return values[: self.rows * self.columns].reshape(self.rows, self.columns), values[self.rows * self.columns :]


def journal_file(out_file: Path, rank: int = 0) -> Path:
    """Where the process ``rank`` writes."""
    return out_file.with_name(out_file.name + _SUFFIX + (f".{rank}" if rank else ""))


def journal_files(out_file: Path) -> list[Path]:
    """All journals of an output file, of whatever number of processes."""
    first = journal_file(out_file)
    found = [path for path in out_file.parent.iterdir() if path.name.startswith(first.name)]
    return sorted(path for path in found if path == first or path.name.removeprefix(f"{first.name}.").isdigit())


def read_places(out_file: Path, identity: Identity) -> dict[int, Place]:
    """Index -> place of every protein that is done.

    Raises:
        ConfigError: a journal is of another model, of other data or options.
        DataError: a file of that name is no journal.
    """
    places: dict[int, Place] = {}
    for path in journal_files(out_file):
        places.update(_scan(path, identity)[0])
    return places


def _scan(path: Path, identity: Identity) -> tuple[dict[int, Place], int]:
    """The places of one journal, and where its last whole record ends (0: there is not even a header)."""
    places: dict[int, Place] = {}
    with path.open("rb") as stream:
        if not _same_identity(path, stream, identity):
            return places, 0
        end = stream.tell()
        while len(head := stream.read(_RECORD.size)) == _RECORD.size:
            checksum, index, rows, columns, pooled = _RECORD.unpack(head)
            size = 4 * (rows * columns + pooled)
            offset = stream.tell()
            values = stream.read(size) if 0 < size < (1 << 40) else b""
            if not values or len(values) < size or zlib.crc32(values, zlib.crc32(head[_LENGTH.size :])) != checksum:
                break
            places[index] = Place(path, offset, rows, columns, pooled)
            end = stream.tell()
    return places, end


def _same_identity(path: Path, stream: IO[bytes], identity: Identity) -> bool:
    """Whether there is a whole header; an error when it is another run's."""
    start = stream.read(len(_MAGIC) + _LENGTH.size)
    if len(start) < len(_MAGIC) + _LENGTH.size:
        return False  # the process ended while it began
    if not start.startswith(_MAGIC):
        raise DataError(f"{path}: not a file of unfinished embeddings; move it away")
    (size,) = _LENGTH.unpack(start[len(_MAGIC) :])
    text = stream.read(size)
    if len(text) < size:
        return False
    found = json.loads(text)
    different = sorted(name for name in found.keys() | identity.keys() if found.get(name) != identity.get(name))
    if different:
        raise ConfigError(
            f"{path}: unfinished embeddings of another run ({', '.join(different)} differ); remove it to begin anew,"
            " or choose another output file"
        )
    return True


class EmbeddingJournal:
    """One process's journal, open for appending; a context manager.

    Args:
        path: made when missing; a torn end is cut off.
        identity: of the run.

    Raises:
        ConfigError: it is another run's, or another process writes it.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self._stream = path.open("ab")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = _scan(path, identity)[1]
        except OSError as error:
            self._stream.close()
            raise ConfigError(f"{path}: another process is writing these embeddings") from error
        except BaseException:
            self._stream.close()
            raise
        self._stream.truncate(end)
        if end == 0:
            text = json.dumps(identity, sort_keys=True).encode()
            self._stream.write(_MAGIC + _LENGTH.pack(len(text)) + text)
            self._stream.flush()

    def append(self, batch: Iterable[tuple[int, Embedding]]) -> None:
        """Append a batch of (index, embedding) in one write."""
        blocks = []
        for index, (states, pooled) in batch:
            body = b"".join(np.ascontiguousarray(values, dtype="<f4").tobytes() for values in (states, pooled))
            head = _RECORD.pack(0, index, *states.shape, pooled.size)[_LENGTH.size :]
            blocks.append(_LENGTH.pack(zlib.crc32(body, zlib.crc32(head))) + head + body)
        self._stream.write(b"".join(blocks))
        self._stream.flush()

    def __enter__(self) -> EmbeddingJournal:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._stream.fileno())
        self._stream.close()
