"""Reader and writer of Megatron-LM's indexed datasets: ``PREFIX.bin`` (token ids) and ``PREFIX.idx`` (their index).

The index has one of two layouts, both little endian and described in docs/data-formats.md: ``mmap`` (magic
``MMIDIDX``), which is the default and identical, byte for byte, to what Megatron-LM writes, and the older ``lazy`` or
``cached`` (magic ``TNTIDX``). The index is loaded (20 bytes per protein, which forked data loader workers share), and
tokens are read when they are needed. Neither file is memory-mapped: one that is shortened under a run, or on a disk
that fails, would end the process by SIGBUS instead of an error. Special tokens are not stored.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from tape.errors import DataError, quoted
from tape.io.checkpoint_formats import LAZY_INDEX_MAGIC, MMAP_INDEX_MAGIC
from tape.io.checksums import HashingStream
from tape.io.writing import output_errors, remove_leftovers, temporary_directory

from .dataset_index import DTYPE_CODES, INDEX_VERSION, DatasetIndex, read_index

LAYOUTS = ("mmap", "lazy", "cached")
_UINT16_LIMIT = 65500  # as in Megatron-LM: ids of a smaller vocabulary are stored as uint16
_WRITEBACK_BYTES = 1 << 23  # tokens that the system is asked to write to disk at a time
_COPY_SEQUENCES = 1 << 20  # sequences per chunk when the index is assembled; bounds memory


def data_path(prefix: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(prefix)}.bin")


def index_path(prefix: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(prefix)}.idx")


def description_path(prefix: str | os.PathLike[str]) -> Path:
    """Path of the sidecar that records the vocabulary of the ids; pretrain.data.corpus defines its content."""
    return Path(f"{os.fspath(prefix)}.json")


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The dtype in which the ``mmap`` layout stores ids of a vocabulary."""
    return np.dtype(np.uint16 if vocab_size < _UINT16_LIMIT else np.int32)


class IndexedDataset:
    """Reader of one corpus. ``dataset[i]`` is sequence i as a read-only array.

    The files are opened on first use, and opened again after unpickling in worker processes.

    Args:
        prefix: path without ``.bin`` and ``.idx``.

    Raises:
        DataError: on first use, if a file is missing, truncated or of another format, or if the two do not match;
            later, if the tokens can't be read.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = os.fspath(prefix)
        self._opened: tuple[DatasetIndex, _TokenFile] | None = None

    def __getstate__(self) -> dict[str, str]:
        return {"prefix": self.prefix}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.prefix = state["prefix"]
        self._opened = None

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.sizes)

    def __getitem__(self, sequence: int) -> np.ndarray:
        return self.read(sequence)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.read(sequence) for sequence in range(len(self)))

    def read(self, sequence: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Ids ``start`` to ``start + length`` of a sequence, by default all, in the dtype of the file."""
        index, tokens = self._open()
        if not 0 <= sequence < len(index.sizes):
            raise IndexError(f"sequence {sequence} is out of range: {self.prefix} has {len(index.sizes)} sequences")
        first = int(index.starts[sequence]) * index.unit // index.dtype.itemsize
        stop = int(index.sizes[sequence]) if length is None else start + length
        return tokens.read(first + start, first + stop)

    @property
    def sizes(self) -> np.ndarray:
        """(n,) tokens of each sequence."""
        return self._open()[0].sizes

    @property
    def document_index(self) -> np.ndarray:
        """(documents + 1,) int64: the first sequence of each document, then the number of sequences."""
        return self._open()[0].documents

    @property
    def states_documents(self) -> bool:
        """Whether the index has document boundaries; without, each sequence is a document."""
        return self._open()[0].states_documents

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._open()[0].dtype

    @property
    def tokens(self) -> int:
        """Number of tokens of the corpus."""
        return len(self._open()[1])

    def _open(self) -> tuple[DatasetIndex, _TokenFile]:
        if self._opened is None:
            index = read_index(index_path(self.prefix))
            self._opened = index, _TokenFile(data_path(self.prefix), index)
        return self._opened


class _TokenFile:
    """The ``.bin`` of a corpus, open for reading; processes that are forked share it.

    Raises:
        DataError: the file is missing or empty, or its size is not that of the index.
    """

    def __init__(self, path: Path, index: DatasetIndex) -> None:
        self._path, self._dtype = path, index.dtype
        self._bytes = int(index.starts[len(index.sizes) - 1]) * index.unit + int(index.sizes[-1]) * index.dtype.itemsize
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
            actual = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        if actual != self._bytes:
            problem = "one of the two is truncated" if actual < self._bytes else "the two belong to different corpora"
            raise DataError(f"{path}: it has {actual} bytes, its .idx requires {self._bytes}; {problem}")
        if not self._bytes:
            raise DataError(f"{path}: the corpus is empty, it has no tokens")

    def __len__(self) -> int:
        """Number of tokens."""
        return self._bytes // self._dtype.itemsize

    def read(self, first: int, stop: int) -> np.ndarray:
        """The tokens from ``first`` to ``stop``, at most to the end of the corpus.

        Raises:
            DataError: the file has been shortened since it was opened, or can't be read.
        """
        itemsize = self._dtype.itemsize
        offset, needed = first * itemsize, max(0, min(stop, len(self)) - first) * itemsize
        content = b""
        while len(content) < needed:
            try:
                part = os.pread(self._descriptor, needed - len(content), offset + len(content))
            except OSError as error:
                raise DataError(f"{self._path}: can't be read ({error.strerror})") from error
            if not part:
                raise DataError(
                    f"{self._path}: truncated after it was opened: it had {self._bytes} bytes and has"
                    f" {os.fstat(self._descriptor).st_size} now; restore it, and don't change a corpus that is in use"
                )
            content = content + part if content else part
        return np.frombuffer(content, dtype=self._dtype)


class IndexedDatasetWriter:
    """Writes a corpus in constant memory; the files appear under their names only when they are complete.

    A context manager: a normal exit publishes ``PREFIX.bin``, the sidecar if there is one, and finally the ``.idx``,
    without which no reader opens a corpus; after an error nothing remains. Temporary files are in a hidden folder
    next to the corpus; folders left by killed processes are removed. To publish several corpora together, call
    :meth:`complete` on each before the first context exits; the exits then only rename files.

    Args:
        prefix: path without ``.bin`` and ``.idx``.
        vocab_size: determines the dtype of the ``mmap`` layout; ``lazy`` and ``cached`` always store int32.
        layout: ``mmap``, ``lazy`` or ``cached``; the last two are the same format.

    Raises:
        DataError: if the layout is unknown.
    """

    def __init__(self, prefix: str | os.PathLike[str], vocab_size: int, layout: str = "mmap") -> None:
        if layout not in LAYOUTS:
            raise DataError(f"unknown corpus layout {quoted(layout)}; choose one of {', '.join(LAYOUTS)}")
        self.prefix = Path(prefix)
        self.layout = layout
        self.dtype = token_dtype(vocab_size) if layout == "mmap" else np.dtype(np.int32)
        self.sequences = self.documents = self.tokens = 0

    def __enter__(self) -> IndexedDatasetWriter:
        self._complete = False
        with ExitStack() as stack:
            stack.enter_context(output_errors(self.prefix))
            self.prefix.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.prefix.parent, self.prefix.name)
            self._folder = stack.enter_context(temporary_directory(self.prefix.parent, self.prefix.name))
            self._open_files()
            self._stack = stack.pop_all()
        return self

    def _open_files(self) -> None:
        self._ids: BinaryIO = (self._folder / "bin").open("wb")
        self._hashed_ids = HashingStream(self._ids)
        self._written_back = 0
        self._description: dict[str, Any] | None = None
        self._sizes: BinaryIO = (self._folder / "sizes").open("wb")
        self._boundaries: BinaryIO = (self._folder / "documents").open("wb")
        self._boundaries.write(np.zeros(1, dtype="<i8").tobytes())

    def add(self, ids: np.ndarray, sizes: Sequence[int] | np.ndarray, documents: Sequence[int] | np.ndarray) -> None:
        """Append complete documents.

        Args:
            ids: concatenated ids of all sequences.
            sizes: number of tokens of each sequence; they sum to ``len(ids)``.
            documents: number of sequences of each document; they sum to ``len(sizes)``.

        Raises:
            ValueError: if the sums do not match.
        """
        if np.sum(sizes) != len(ids) or np.sum(documents) != len(sizes):
            raise ValueError(f"sizes sum to {np.sum(sizes)}, not {len(ids)}, or documents not to {len(sizes)}")
        ends = self.sequences + np.cumsum(documents, dtype="<i8")
        with output_errors(data_path(self.prefix)):
            self._hashed_ids.write(np.ascontiguousarray(ids, dtype=self.dtype).data)
            self._start_writeback()
            self._sizes.write(np.asarray(sizes, dtype="<i4").tobytes())
            self._boundaries.write(ends.tobytes())
        self.sequences += len(sizes)
        self.documents += len(documents)
        self.tokens += len(ids)

    def _start_writeback(self) -> None:
        """Let the system write tokens to disk while more are computed, so that the last fsync has little to wait for.

        Linux begins to write modified pages when they are declared as not needed, and keeps them in memory until then.
        """
        start, stop = self._written_back, self._ids.tell()
        if stop - start >= _WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):  # not on macOS
            with suppress(OSError):  # only a hint; errors of the disk are reported by fsync
                os.posix_fadvise(self._ids.fileno(), start, stop - start, os.POSIX_FADV_DONTNEED)
            self._written_back = stop

    def describe(self, description: dict[str, Any]) -> None:
        """Set the content of the sidecar ``PREFIX.json``, to which :meth:`complete` adds the digests of the files."""
        self._description = dict(description)

    def complete(self) -> None:
        """Write the index and flush all files to disk; nothing can be added afterwards."""
        if self._complete:
            return
        with output_errors(data_path(self.prefix)):
            self._ids.flush()
            os.fsync(self._ids.fileno())
            for stream in self._streams:  # the others are temporary, so they need not reach the disk
                stream.close()
        with output_errors(index_path(self.prefix)):
            digests = {"bin": self._hashed_ids.hexdigest(), "idx": self._write_index()}
            if self._description is not None:
                self._write_sidecar({**self._description, "sha256": digests})
        self._complete = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            try:
                if kind is None:
                    self.complete()
                    self._publish()
            finally:
                for stream in self._streams:
                    with suppress(OSError):  # close() may fail on the buffered rest; the original error matters more
                        stream.close()

    @property
    def _streams(self) -> tuple[BinaryIO, ...]:
        return self._ids, self._sizes, self._boundaries

    def _write_index(self) -> str:
        """Write the index; returns its SHA-256."""
        with (self._folder / "idx").open("wb") as stream:
            hashed = HashingStream(stream)
            (self._write_mmap_index if self.layout == "mmap" else self._write_lazy_index)(hashed)
            stream.flush()
            os.fsync(stream.fileno())
        return hashed.hexdigest()

    def _write_sidecar(self, description: dict[str, Any]) -> None:
        with (self._folder / "json").open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(description, indent=2, sort_keys=True) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _write_mmap_index(self, stream: HashingStream) -> None:
        header = struct.pack("<QBQQ", INDEX_VERSION, DTYPE_CODES[self.dtype], self.sequences, self.documents + 1)
        stream.write(MMAP_INDEX_MAGIC + header)
        self._copy("sizes", stream)
        self._write_starts(stream, self.dtype.itemsize)
        self._copy("documents", stream)

    def _write_lazy_index(self, stream: HashingStream) -> None:
        stream.write(
            LAZY_INDEX_MAGIC + struct.pack("<QQQ", INDEX_VERSION, DTYPE_CODES[self.dtype], self.dtype.itemsize)
        )
        stream.write(struct.pack("<QQQ", self.sequences, self.sequences, self.documents + 1))
        # Offsets into the list of dimensions: every item has exactly one.
        for first in range(0, self.sequences + 1, _COPY_SEQUENCES):
            stream.write(np.arange(first, min(first + _COPY_SEQUENCES, self.sequences + 1), dtype="<i8").tobytes())
        self._write_starts(stream, 1)
        stream.write(struct.pack("<q", self.tokens))  # this layout also stores the end of the last sequence
        for sizes in self._stored_sizes():
            stream.write(sizes.astype("<i8").tobytes())
        self._copy("documents", stream)

    def _write_starts(self, stream: HashingStream, unit: int) -> None:
        start = 0
        for sizes in self._stored_sizes():
            ends = start + np.cumsum(sizes, dtype=np.int64)
            stream.write(((ends - sizes) * unit).astype("<i8").tobytes())
            start = int(ends[-1])

    def _stored_sizes(self) -> Iterator[np.ndarray]:
        with (self._folder / "sizes").open("rb") as source:
            while chunk := source.read(4 * _COPY_SEQUENCES):
                yield np.frombuffer(chunk, dtype="<i4")

    def _copy(self, name: str, stream: HashingStream) -> None:
        with (self._folder / name).open("rb") as source:
            shutil.copyfileobj(source, stream)

    def _publish(self) -> None:
        # Remove the old index first: a kill between the renames then leaves a corpus without index, not a mismatch.
        index_path(self.prefix).unlink(missing_ok=True)
        description_path(self.prefix).unlink(missing_ok=True)
        os.replace(self._folder / "bin", data_path(self.prefix))
        if (self._folder / "json").exists():
            os.replace(self._folder / "json", description_path(self.prefix))
        os.replace(self._folder / "idx", index_path(self.prefix))
