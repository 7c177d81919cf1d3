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
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from tape.errors import DataError, quoted
from tape.io.checkpoint_formats import LAZY_INDEX_MAGIC, MMAP_INDEX_MAGIC
from tape.io.checksums import HashingStream
from tape.io.writing import output_errors, remove_leftovers, temporary_directory

LAYOUTS = ("mmap", "lazy", "cached")
_VERSION = 1
_MMAP_HEADER_BYTES = 34
_LAZY_HEADER_BYTES = 56
_FAIRSEQ_MMAP_HEADER_BYTES, _FAIRSEQ_LAZY_HEADER_BYTES = 26, 48
_DTYPES: dict[int, type[np.integer[Any]]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_UINT16_LIMIT = 65500  # as in Megatron-LM: ids of a smaller vocabulary are stored as uint16
_LARGEST_TOKENS = 1 << 57  # of a corpus: their bytes stay far from the limit of int64
_WRITEBACK_BYTES = 1 << 23  # tokens that the system is asked to write to disk at a time
_TOKENIZE_AGAIN = (
    "tokenize the sequences that it was made from again: "
    "python pretrain/tools/preprocess_data.py --input FILE --output-prefix PREFIX"
)
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


@dataclass(frozen=True)
class _Index:
    """A parsed ``.idx`` of n sequences in d documents."""

    dtype: np.dtype[Any]
    sizes: np.ndarray  # (n,) tokens of each sequence
    starts: np.ndarray  # (n,) or (n + 1,) start of each sequence in the .bin, in multiples of `unit` bytes
    unit: int
    documents: np.ndarray  # (d + 1,) int64, first sequence of each document, then n


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
        self._opened: tuple[_Index, _TokenFile] | None = None

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
    def dtype(self) -> np.dtype[Any]:
        return self._open()[0].dtype

    @property
    def tokens(self) -> int:
        """Number of tokens of the corpus."""
        return len(self._open()[1])

    def _open(self) -> tuple[_Index, _TokenFile]:
        if self._opened is None:
            index = _read_index(index_path(self.prefix))
            self._opened = index, _TokenFile(data_path(self.prefix), index)
        return self._opened


class _TokenFile:
    """The ``.bin`` of a corpus, open for reading; processes that are forked share it.

    Raises:
        DataError: the file is missing or empty, or its size is not that of the index.
    """

    def __init__(self, path: Path, index: _Index) -> None:
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


class _IndexFile:
    """An ``.idx`` that is being read.

    Attributes:
        path: its name, for messages.
        header: its first bytes, as many as the longest header has.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path, self._stream = path, stream
        self.header = stream.read(_LAZY_HEADER_BYTES)
        self._size = os.fstat(stream.fileno()).st_size

    def __len__(self) -> int:
        """Its size in bytes."""
        return self._size

    def expect_bytes(self, needed: int) -> None:
        """Raise a :class:`DataError` if it has fewer bytes."""
        if self._size < needed:
            raise DataError(f"{self.path}: truncated: it has {self._size} bytes, at least {needed} are required")

    def section(self, offset: int, dtype: np.dtype[Any], count: int) -> np.ndarray:
        """``count`` values that begin at byte ``offset``; the caller has checked that there are so many."""
        self._stream.seek(offset)
        content = self._stream.read(count * dtype.itemsize)
        if len(content) < count * dtype.itemsize:
            raise DataError(f"{self.path}: truncated while it was read: it had {self._size} bytes")
        return np.frombuffer(content, dtype=dtype)


def _read_index(path: Path) -> _Index:
    try:
        with path.open("rb") as stream:
            index = _parse_index(_IndexFile(path, stream))
    except FileNotFoundError:
        _refuse_directory(path.parent if path.name == ".idx" else path.with_suffix(""))
        raise DataError(f"{path}: no such file{_similar_prefixes(path)}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a corpus index ({error})") from error
    except MemoryError:
        raise DataError(f"{path}: the index of the corpus does not fit into memory; divide the corpus") from None
    _check_index(path, index)
    return index


def _parse_index(file: _IndexFile) -> _Index:
    _refuse_fairseq(file)
    if file.header.startswith(MMAP_INDEX_MAGIC):
        return _read_mmap_index(file)
    if file.header.startswith(LAZY_INDEX_MAGIC):
        return _read_lazy_index(file)
    raise DataError(f"{file.path}: not a corpus index (it starts with neither MMIDIDX nor TNTIDX)")


def _refuse_fairseq(file: _IndexFile) -> None:
    """Refuse an index of fairseq, which has Megatron-LM's signatures, but neither documents nor their number.

    Its size follows from its header, and no index with documents of as many sequences has that size.
    """
    header = file.header
    if header.startswith(MMAP_INDEX_MAGIC) and len(header) >= _FAIRSEQ_MMAP_HEADER_BYTES:
        (sequences,) = struct.unpack_from("<Q", header, _FAIRSEQ_MMAP_HEADER_BYTES - 8)
        expected = _FAIRSEQ_MMAP_HEADER_BYTES + 12 * sequences
    elif header.startswith(LAZY_INDEX_MAGIC) and len(header) >= _FAIRSEQ_LAZY_HEADER_BYTES:
        sequences, dimensions = struct.unpack_from("<QQ", header, _FAIRSEQ_LAZY_HEADER_BYTES - 16)
        expected = _FAIRSEQ_LAZY_HEADER_BYTES + 8 * (2 * (sequences + 1) + dimensions)
    else:
        return
    if len(file) == expected:
        raise DataError(
            f"{file.path}: an index of fairseq-preprocess, whose ids are those of its dict.txt; {_TOKENIZE_AGAIN}"
        )


def _refuse_directory(prefix: Path) -> None:
    """Refuse a directory as a prefix, such as ``data-bin``, which fairseq-train takes."""
    if not prefix.is_dir():
        return
    if (prefix / "dict.txt").is_file():
        raise DataError(
            f"{prefix}: a directory of fairseq-preprocess, whose ids are those of dict.txt; {_TOKENIZE_AGAIN}"
        )
    raise DataError(
        f"{prefix}: a directory; give the prefix of a corpus, the path of its .idx file without this suffix"
        f"{_similar_prefixes(prefix / '.idx')}"
    )


def _similar_prefixes(path: Path) -> str:
    """Suggest prefixes for a missing file: the suffix that preprocess_data.py appends is easily forgotten."""
    start = "" if path.name == ".idx" else path.stem
    found = sorted(path.parent.glob(f"{start}*.idx"))[:3] if path.parent.is_dir() else []
    return "; did you mean " + " or ".join(str(other.with_suffix("")) for other in found) + "?" if found else ""


def _read_mmap_index(file: _IndexFile) -> _Index:
    file.expect_bytes(_MMAP_HEADER_BYTES)
    version, code, sequences, boundaries = struct.unpack_from("<QBQQ", file.header, 9)
    _check_version(file.path, version)
    needed = _MMAP_HEADER_BYTES + 12 * sequences + 8 * boundaries
    file.expect_bytes(needed)
    if len(file) not in (needed, needed + sequences):  # recent Megatron-LM may add one mode byte per sequence
        raise DataError(f"{file.path}: damaged: it has {len(file)} bytes, its header requires {needed}")
    starts = _MMAP_HEADER_BYTES + 4 * sequences
    return _Index(
        dtype=_dtype_of(file.path, code),
        sizes=file.section(_MMAP_HEADER_BYTES, np.dtype("<i4"), sequences),
        starts=file.section(starts, np.dtype("<i8"), sequences),
        unit=1,
        documents=file.section(starts + 8 * sequences, np.dtype("<i8"), boundaries),
    )


def _read_lazy_index(file: _IndexFile) -> _Index:
    file.expect_bytes(_LAZY_HEADER_BYTES)
    header = struct.unpack_from("<QQQQQQ", file.header, 8)
    version, code, itemsize, sequences, dimensions, boundaries = header
    _check_version(file.path, version)
    if itemsize != _dtype_of(file.path, code).itemsize:
        raise DataError(
            f"{file.path}: damaged: it states {itemsize} bytes per token, its element type {code} has"
            f" {_dtype_of(file.path, code).itemsize}"
        )
    file.expect_bytes(_LAZY_HEADER_BYTES + 8 * (2 * (sequences + 1) + dimensions + boundaries))
    if dimensions != sequences:
        raise DataError(
            f"{file.path}: contains items with more than one dimension; only sequences of tokens are supported"
        )
    starts = _LAZY_HEADER_BYTES + 8 * (sequences + 1)
    sizes = starts + 8 * (sequences + 1)
    return _Index(
        dtype=_dtype_of(file.path, code),
        sizes=file.section(sizes, np.dtype("<i8"), sequences),
        starts=file.section(starts, np.dtype("<i8"), sequences + 1),
        unit=itemsize,
        documents=file.section(sizes + 8 * sequences, np.dtype("<i8"), boundaries),
    )


def _check_version(path: Path, version: int) -> None:
    if version != _VERSION:
        raise DataError(f"{path}: index version {version} is not supported, only version {_VERSION}")


def _dtype_of(path: Path, code: int) -> np.dtype[Any]:
    if code not in _DTYPES:
        raise DataError(f"{path}: element type {code} is not a type of token ids; these are {sorted(_DTYPES)}")
    return np.dtype(_DTYPES[code]).newbyteorder("<")


def _check_index(path: Path, index: _Index) -> None:
    sequences, documents = len(index.sizes), index.documents
    if not sequences:
        raise DataError(f"{path}: the corpus is empty, it has no sequences")
    if len(documents) < 2 or documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
        raise DataError(f"{path}: damaged: its document boundaries do not run from 0 to {sequences}")
    for name, values in (("size", index.sizes), ("start", index.starts)):
        for place in (int(values.argmin()), int(values.argmax())):
            if not 0 <= values[place] <= _LARGEST_TOKENS:
                raise DataError(f"{path}: damaged: sequence {place} has {name} {values[place]}")
    ends = index.starts[:sequences] * index.unit + index.sizes * np.int64(index.dtype.itemsize)
    if index.starts[0] != 0 or (index.starts[1:sequences] * index.unit != ends[:-1]).any():
        raise DataError(f"{path}: damaged: its sequences are not contiguous")


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
        header = struct.pack("<QBQQ", _VERSION, _CODES[self.dtype], self.sequences, self.documents + 1)
        stream.write(MMAP_INDEX_MAGIC + header)
        self._copy("sizes", stream)
        self._write_starts(stream, self.dtype.itemsize)
        self._copy("documents", stream)

    def _write_lazy_index(self, stream: HashingStream) -> None:
        stream.write(LAZY_INDEX_MAGIC + struct.pack("<QQQ", _VERSION, _CODES[self.dtype], self.dtype.itemsize))
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
