"""Opening text files, optionally compressed (.gz, .xz, .zst), with errors that name the file and the problem."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from tape.errors import DataError

_CHUNK_BYTES = 1 << 17
LONGEST_LINE = 1 << 27  # bytes; 4,000 times the longest known protein

ReadCallback = Callable[[int], object]  # called with the number of bytes just read from the file


class _CountedFile(io.FileIO):
    """A file that reports the number of bytes read."""

    def __init__(self, path: Path, progress: ReadCallback) -> None:
        super().__init__(path, "rb")
        self._progress = progress

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer) or 0
        self._progress(size)
        return size


class _ZstdStream(io.RawIOBase):
    """Decompressed bytes of a .zst file. Unlike zstandard's own reader, it raises an error if a frame is truncated."""

    def __init__(self, source: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise DataError("reading .zst files needs the package zstandard: pip install zstandard") from None
        self._source = source
        self._new_frame: Callable[[], Any] = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._source.read(_CHUNK_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("compressed file ended before the end-of-stream marker was reached")
                return 0
            self._ready = self._decompress(data)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _decompress(self, data: bytes) -> bytes:
        """Decompress ``data``, which may contain several frames (pzstd writes many)."""
        parts = []
        while data:
            if self._frame is None:
                self._frame = self._new_frame()
            parts.append(self._frame.decompress(data))
            data = b""
            if self._frame.eof:
                data = self._frame.unused_data
                self._frame = None
        return b"".join(parts)


class _LongLineError(Exception):
    """A line is longer than allowed."""


class _BoundedLines(io.BufferedIOBase):
    """Bytes of ``source``, as long as no line is longer than ``longest``.

    A few megabytes of a compressed file can hold a line of many gigabytes, which a reader of lines would put together
    in memory. Lines are counted block by block, so the bound costs nothing per line.
    """

    def __init__(self, source: IO[bytes], longest: int) -> None:
        self._source, self._longest = source, longest
        self._line, self._length = 1, 0  # the number of the current line, and how many of its bytes were read

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._counted(self._source.read(-1 if size is None else size))

    def read1(self, size: int = -1, /) -> bytes:
        return self._counted(self._source.read(size if size >= 0 else _CHUNK_BYTES))

    def _counted(self, block: bytes) -> bytes:
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        if last < 0:
            self._length += len(block)
        else:
            self._line += block.count(b"\n")
            self._length = len(block) - last - 1
        if self._length > self._longest:
            raise _LongLineError(f"line {self._line} is longer than {self._longest:,} bytes, which no record is")
        return block


_OPENERS: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": lambda source: io.BufferedReader(_ZstdStream(source), _CHUNK_BYTES),
}
COMPRESSIONS = tuple(_OPENERS)


def split_suffix(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Suffixes of the format and of the compression in lower case: ``(".fasta", ".xz")``; ``""`` if there is none."""
    name = Path(path).name.lower()
    compression = next((suffix for suffix in COMPRESSIONS if name.endswith(suffix)), "")
    return Path(name.removesuffix(compression)).suffix, compression


@contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn errors while reading ``path`` into a :class:`DataError` that names it."""
    try:
        yield
    except _LongLineError as error:
        raise DataError(f"{path}, {error}") from error
    except EOFError as error:
        raise DataError(f"{path}: truncated: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start} of a block: {error.reason})") from error
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged, or not compressed as its suffix indicates: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table: {error}") from error
    except Exception as error:
        if type(error).__name__ == "ZstdError":  # zstandard is optional, so its class can't be named above
            raise DataError(f"{path}: damaged, or not compressed as its suffix indicates: {error}") from error
        raise


@contextmanager
def open_text(
    path: str | os.PathLike[str], progress: ReadCallback | None = None, longest_line: int | None = LONGEST_LINE
) -> Iterator[IO[str]]:
    """Open a UTF-8 text file, decompressed according to its suffix.

    Args:
        path: the file.
        progress: called with the number of bytes that were just read from the (compressed) file.
        longest_line: bytes that a line may have; None for a format that is not read line by line.

    Raises:
        DataError: the file is missing, truncated, damaged or not text, or a line is too long; also raised inside the
            block.
    """
    path = Path(path)
    opener = _OPENERS.get(split_suffix(path)[1], nullcontext)
    with explain_errors(path), _open_bytes(path, progress) as raw, opener(raw) as stream:
        bounded: Any = stream if longest_line is None else _BoundedLines(stream, longest_line)
        yield io.TextIOWrapper(bounded, encoding="utf-8-sig", newline="")


def _open_bytes(path: Path, progress: ReadCallback | None) -> IO[bytes]:
    if progress is None:
        return path.open("rb")
    return io.BufferedReader(_CountedFile(path, progress), _CHUNK_BYTES)


def file_size(path: str | os.PathLike[str]) -> int:
    """Size in bytes of a file, or of ``data.mdb`` of an LMDB directory.

    Raises:
        DataError: there is no such file.
    """
    path = Path(path)
    with explain_errors(path):
        if path.is_dir() and not (path / "data.mdb").is_file():
            raise DataError(f"{path}: a directory, neither a file nor an LMDB store")
        return (path / "data.mdb" if path.is_dir() else path).stat().st_size
