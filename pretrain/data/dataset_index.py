"""Parser of the index of Megatron-LM's indexed datasets, ``PREFIX.idx``; see :mod:`.indexed_dataset`."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tape.errors import DataError
from tape.io.checkpoint_formats import LAZY_INDEX_MAGIC, MMAP_INDEX_MAGIC

INDEX_VERSION = 1
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
DTYPE_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_LARGEST_TOKENS = 1 << 57  # of a corpus: their bytes stay far from the limit of int64
_TOKENIZE_AGAIN = (
    "tokenize the sequences that it was made from again: proteinlm preprocess --input FILE --output-prefix PREFIX"
)


@dataclass(frozen=True)
class DatasetIndex:
    """A parsed ``.idx`` of n sequences in d documents."""

    dtype: np.dtype[Any]
    sizes: np.ndarray  # (n,) tokens of each sequence
    starts: np.ndarray  # (n,) or (n + 1,) start of each sequence in the .bin, in multiples of `unit` bytes
    unit: int
    documents: np.ndarray  # (d + 1,) int64, first sequence of each document, then n
    states_documents: bool = True  # False: the file has no boundaries, and each sequence is a document


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


def read_index(path: Path) -> DatasetIndex:
    """Load and check an index of either layout.

    Raises:
        DataError: it is missing, truncated, damaged or of another format.
    """
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
    if len(index.documents) == 1 and index.documents[0] == 0 and len(index.sizes):
        # merge_file_ of Megatron-LM before 2023 copied the sequences of the merged corpora, but not their documents
        index = replace(index, documents=np.arange(len(index.sizes) + 1), states_documents=False)
    _check_index(path, index)
    return index


def _parse_index(file: _IndexFile) -> DatasetIndex:
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


def _read_mmap_index(file: _IndexFile) -> DatasetIndex:
    file.expect_bytes(_MMAP_HEADER_BYTES)
    version, code, sequences, boundaries = struct.unpack_from("<QBQQ", file.header, 9)
    _check_version(file.path, version)
    needed = _MMAP_HEADER_BYTES + 12 * sequences + 8 * boundaries
    file.expect_bytes(needed)
    if len(file) not in (needed, needed + sequences):  # recent Megatron-LM may add one mode byte per sequence
        raise DataError(f"{file.path}: damaged: it has {len(file)} bytes, its header requires {needed}")
    starts = _MMAP_HEADER_BYTES + 4 * sequences
    return DatasetIndex(
        dtype=_dtype_of(file.path, code),
        sizes=file.section(_MMAP_HEADER_BYTES, np.dtype("<i4"), sequences),
        starts=file.section(starts, np.dtype("<i8"), sequences),
        unit=1,
        documents=file.section(starts + 8 * sequences, np.dtype("<i8"), boundaries),
    )


def _read_lazy_index(file: _IndexFile) -> DatasetIndex:
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
    return DatasetIndex(
        dtype=_dtype_of(file.path, code),
        sizes=file.section(sizes, np.dtype("<i8"), sequences),
        starts=file.section(starts, np.dtype("<i8"), sequences + 1),
        unit=itemsize,
        documents=file.section(sizes + 8 * sequences, np.dtype("<i8"), boundaries),
    )


def _check_version(path: Path, version: int) -> None:
    if version != INDEX_VERSION:
        raise DataError(f"{path}: index version {version} is not supported, only version {INDEX_VERSION}")


def _dtype_of(path: Path, code: int) -> np.dtype[Any]:
    if code not in _DTYPES:
        raise DataError(f"{path}: element type {code} is not a type of token ids; these are {sorted(_DTYPES)}")
    return np.dtype(_DTYPES[code]).newbyteorder("<")


def _check_index(path: Path, index: DatasetIndex) -> None:
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
