"""Writing TAPE's LMDB files, and reading them without executing code from their pickles.

The layout is that of tape-proteins: an LMDB directory with ``data.mdb``, in which ``b"num_examples"`` is the pickled
number of records, and ``b"0"``, ``b"1"``, ... are the records, pickled dicts. :func:`pickle.loads` would execute
arbitrary code from a downloaded file, so everything is read with
:func:`~tape.io.restricted_pickle.restricted_loads`; damaged pages would crash the LMDB library, so the file is read
with :mod:`~tape.io.lmdb_pages`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from tape.errors import DataError, quoted

from .lmdb_pages import LMDBFile
from .restricted_pickle import restricted_loads
from .text_files import data_file
from .writing import atomic_directory, output_errors

COUNT_KEY = b"num_examples"
PICKLE_PROTOCOL = 4  # the newest that Python 3.4 to 3.7, which the original TAPE supports, can read
_FIRST_MAP_SIZE = 16 << 20
_BATCH_BYTES = 4 << 20

# --- writing --------------------------------------------------------------------------------------------------------


def write_lmdb(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> int:
    """Write records in TAPE's layout, atomically. The memory map grows as needed.

    Args:
        path: the LMDB directory to create, ``.../{folder}_{split}.lmdb``.
        records: one mapping per protein; when read, ``id`` defaults to the record's number.
        overwrite: replace an existing directory.

    Returns:
        The number of records.

    Raises:
        ConfigError: ``path`` exists and ``overwrite`` is False.
        OutputError: the disk is full.
        DataError: LMDB can't store a record.
    """
    with atomic_directory(path, overwrite=overwrite) as folder:
        environment = lmdb.open(str(folder), map_size=_FIRST_MAP_SIZE, sync=False, metasync=False)
        try:
            with output_errors(Path(path)):
                count = _put_records(environment, records)
                environment.sync(True)
        except lmdb.Error as error:
            raise DataError(f"{path}: can't be written ({error})") from error
        finally:
            environment.close()
        (folder / "lock.mdb").unlink(missing_ok=True)  # unused, since readers open the file without locks
    return count


def _put_records(environment: lmdb.Environment, records: Iterable[Mapping[str, Any]]) -> int:
    """Store ``records`` in batches of a few megabytes, then their number."""
    batch: list[tuple[bytes, bytes]] = []
    size = count = 0
    for record in records:
        value = pickle.dumps(dict(record), protocol=PICKLE_PROTOCOL)
        batch.append((str(count).encode(), value))
        size += len(value)
        count += 1
        if size >= _BATCH_BYTES:
            _put_batch(environment, batch)
            batch, size = [], 0
    batch.append((COUNT_KEY, pickle.dumps(count, protocol=PICKLE_PROTOCOL)))
    _put_batch(environment, batch)
    return count


def _put_batch(environment: lmdb.Environment, batch: list[tuple[bytes, bytes]]) -> None:
    """Commit one batch. If the map is full, double its size and retry."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


# --- reading --------------------------------------------------------------------------------------------------------


def _open_file(path: Path) -> LMDBFile:
    """Open ``data.mdb`` of a directory, or the path itself for stores with ``subdir=False``."""
    try:
        return LMDBFile(data_file(path))
    except OSError as error:
        raise DataError(f"{path}: no LMDB store ({error.strerror})") from error


class LMDBReader:
    """Read-only sequence of the records of a TAPE LMDB file.

    Readers can be passed to worker processes, forked or spawned.

    Args:
        path: the LMDB directory (or the file, for stores without a directory).

    Raises:
        DataError: the path is missing, not an LMDB file, or truncated; on access, a record is missing or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: LMDBFile | None = None
        self._length: int | None = None
        self._length = len(self)  # so that a wrong path or file raises here, not during an epoch

    def __len__(self) -> int:
        if self._length is None:
            where = f"{self.path}, key 'num_examples'"
            count = restricted_loads(self._get(COUNT_KEY, where), where)
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
                raise DataError(f"{where}: expected a number of records, found {quoted(count)}")
            self._length = int(count)
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Record ``index`` (negative from the end). ``id`` is a string; it defaults to ``str(index)``."""
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"{self.path}: record {index} of {length}")
        index = int(index) % length
        where = f"{self.path}, record {index}"
        record = restricted_loads(self._get(str(index).encode(), where), where)
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected a dict, found {type(record).__name__}")
        identifier = record.get("id", index)  # the published files have bytes, strings, or no id
        record["id"] = identifier.decode("utf-8", "replace") if isinstance(identifier, bytes) else str(identifier)
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(len(self)))

    def close(self) -> None:
        """Release the file; the next access opens it again."""
        self._file = None

    def __enter__(self) -> LMDBReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], LMDBReader], tuple[()]]:
        return partial(LMDBReader, self.path), ()

    def _get(self, key: bytes, where: str) -> bytes:
        if self._file is None:
            self._file = _open_file(self.path)
        value = self._file.get(key)
        if value is None:
            raise DataError(f"{where}: missing from the file")
        return value
