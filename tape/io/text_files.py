"""Opening text files, optionally compressed (.gz, .bz2, .xz, .zst), with errors that name the file and the problem.

Text is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one. Bytes that are not UTF-8 become lone
surrogates (Python's ``surrogateescape``), so that each format decides whether they are allowed where they are; see
:func:`check_text`. A line may have :data:`LONGEST_LINE` bytes at most, which is checked while the file is decompressed,
before the line is in memory.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol, cast

from tape.errors import DataError, quoted

STANDARD_INPUT = "-"
LONGEST_LINE = 1 << 27  # bytes; the longest known protein has 35,213 residues, its coordinates take 2 MB of JSON
_CHUNK_BYTES = 1 << 17
_XZ_MEMORY_BYTES = 1 << 28  # for dictionaries of up to about 256 MiB; that of xz -9 has 64
_ZSTD_CHUNK_BYTES = 1 << 10  # a block of 4 bytes can expand to 128 KiB, so this expands to 32 MiB at most

ReadCallback = Callable[[int], object]  # called with the number of bytes just read from the file


class Digest(Protocol):
    """A hash object of :mod:`hashlib`."""

    def update(self, data: memoryview, /) -> None: ...


class _ObservedFile(io.FileIO):
    """A file that reports the number of bytes read, and adds them to a digest."""

    def __init__(self, file: Path | int, progress: ReadCallback | None, digest: Digest | None) -> None:
        super().__init__(file, "rb", closefd=not isinstance(file, int))
        self._progress, self._digest = progress, digest

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer) or 0
        if self._progress is not None:
            self._progress(size)
        if self._digest is not None:
            self._digest.update(memoryview(buffer)[:size])
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
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._source.read(_ZSTD_CHUNK_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("compressed file ended before the end-of-stream marker was reached")
                return 0
            self._ready = memoryview(self._decompress(data))
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


class _XzStream(io.RawIOBase):
    """Decompressed bytes of a .xz file, of one or several streams.

    Python's ``lzma.open`` has no limit of memory, so that a file of some bytes can allocate a dictionary of 4 GiB.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._stream = self._new_stream()
        self._has_begun = True  # whether the present stream has bytes; a file has one stream at least

    @staticmethod
    def _new_stream() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=_XZ_MEMORY_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self._stream.eof:
                data = self._stream.unused_data.lstrip(b"\0")  # the padding of a stream
                self._stream, self._has_begun = self._new_stream(), bool(data)
            if self._stream.needs_input and not data:
                data = self._source.read(_CHUNK_BYTES)
                data = data if self._has_begun else data.lstrip(b"\0")
                if not data and not self._source.peek(1):  # type: ignore[attr-defined]
                    if self._has_begun:
                        raise EOFError("compressed file ended before the end-of-stream marker was reached")
                    return 0
                self._has_begun = self._has_begun or bool(data)
            decompressed = self._stream.decompress(data, len(buffer))
            if decompressed:
                buffer[: len(decompressed)] = decompressed
                return len(decompressed)


class _BoundedLines(io.BufferedIOBase):
    """Bytes of ``source``, as long as no line is longer than ``longest``.

    A few megabytes of a compressed file can hold a line of many gigabytes, which a reader of lines would put together
    in memory. Lines are counted block by block, so the bound costs nothing per line.

    Args:
        source: the file.
        name: its name, for messages.
        longest: bytes that a line may have.
        taken: bytes that were read from ``source`` already, and that come first.
        lines: number of lines before ``taken``.
    """

    def __init__(self, source: Any, name: str, longest: int, taken: bytes = b"", lines: int = 0) -> None:
        self._source, self._name, self._longest = source, name, longest
        self._taken = taken
        self._lines, self._bytes = lines, 0  # complete lines so far; bytes after the last of them

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        block: bytes = self._taken or self._source.read1(max(size, _CHUNK_BYTES))
        self._taken = b""
        self._lines += block.count(b"\n")
        end = max(block.rfind(b"\n"), block.rfind(b"\r") if b"\n" not in block else -1)
        self._bytes = len(block) - end - 1 if end >= 0 else self._bytes + len(block)
        if self._bytes > self._longest:
            raise DataError(
                f"{self._name}, line {self._lines + 1} is longer than {self._longest:,} bytes, which no record is;"
                " is this a file of proteins?"
            )
        return block

    def read(self, size: int | None = -1, /) -> bytes:
        blocks, missing = [], -1 if size is None else size
        while missing and (block := self.read1(missing)):
            blocks.append(block)
            missing = max(0, missing - len(block)) if missing > 0 else missing
        return b"".join(blocks)


_OPENERS: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lambda source: io.BufferedReader(_XzStream(source), _CHUNK_BYTES),
    ".zst": lambda source: io.BufferedReader(_ZstdStream(source), _CHUNK_BYTES),
}
COMPRESSIONS = tuple(_OPENERS)
_MAGIC_NUMBERS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_BYTE_ORDER_MARKS = {  # UTF-32 before UTF-16, whose little-endian mark is its beginning
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def split_suffix(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Suffixes of the format and of the compression in lower case: ``(".fasta", ".xz")``; ``""`` if there is none."""
    name = Path(path).name.lower()
    compression = next((suffix for suffix in COMPRESSIONS if name.endswith(suffix)), "")
    return Path(name.removesuffix(compression)).suffix, compression


def display_name(path: str | os.PathLike[str]) -> str:
    """The name of a file in messages."""
    return "standard input" if os.fspath(path) == STANDARD_INPUT else os.fspath(path)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the standard input or a pipe, which can be read only once."""
    if os.fspath(path) == STANDARD_INPUT:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


@contextmanager
def explain_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors while reading ``path`` into a :class:`DataError` that names it."""
    name = display_name(path)
    try:
        yield
    except EOFError as error:
        raise DataError(f"{name}: truncated: {error}") from error
    except UnicodeError as error:  # of UTF-16 and UTF-32; for UTF-8 see check_text
        raise DataError(f"{name}: has a byte order mark of UTF-16 or UTF-32, but is not in it: {error}") from error
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        if "emory usage limit" in str(error):
            raise DataError(
                f"{name}: decompressing it needs more than {_XZ_MEMORY_BYTES >> 20} MiB of memory (files of xz -9 need"
                " 65); compress it again: xz -dc FILE | xz -9 > NEW"
            ) from error
        raise DataError(f"{name}: damaged, or not compressed as its suffix indicates: {error}") from error
    except OSError as error:
        if error.errno is None:  # bz2 reports damaged data as an OSError without a number
            raise DataError(f"{name}: damaged, or not compressed as its suffix indicates: {error}") from error
        raise DataError(f"{name}: {error.strerror or error}") from error
    except csv.Error as error:
        raise DataError(f"{name}: not a readable table: {error}") from error
    except Exception as error:
        if type(error).__name__ == "ZstdError":  # zstandard is optional, so its class can't be named above
            raise DataError(f"{name}: damaged, or not compressed as its suffix indicates: {error}") from error
        if isinstance(error, ValueError) and "null byte" in str(error):
            raise DataError(f"{quoted(name)}: not a file name") from error
        raise


@contextmanager
def open_bytes(
    path: str | os.PathLike[str],
    progress: ReadCallback | None = None,
    *,
    compression: str | None = None,
    digest: Digest | None = None,
) -> Iterator[Any]:
    """Open a file, or the standard input for ``-``, for buffered reading of its decompressed bytes.

    Args:
        path: the file.
        progress: called with the number of (compressed) bytes just read.
        compression: one of :data:`COMPRESSIONS`, or ``""`` for none; None: according to the suffix.
        digest: hash object to which the bytes of the file are added.

    Raises:
        DataError: the file is missing, truncated, damaged, or compressed without the suffix; also raised inside the
            block.
    """
    chosen = split_suffix(path)[1] if compression is None else compression
    opener = _OPENERS.get(chosen, nullcontext)
    file = 0 if os.fspath(path) == STANDARD_INPUT else Path(path)
    with explain_errors(path), ExitStack() as stack:
        raw = stack.enter_context(io.BufferedReader(_ObservedFile(file, progress, digest), _CHUNK_BYTES))
        first = raw.peek(8)[:8]
        found = next((suffix for magic, suffix in _MAGIC_NUMBERS.items() if first.startswith(magic)), "")
        if found and not chosen:
            raise DataError(f"{display_name(path)}: compressed; its name must end in {found}, or --format in it")
        yield stack.enter_context(opener(raw))


def _wide_encoding(stream: Any) -> str | None:
    first = stream.peek(4)[:4]
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if first.startswith(mark)), None)


def has_wide_encoding(stream: Any) -> bool:
    """Whether an open file of bytes begins with the byte order mark of UTF-16 or UTF-32."""
    return _wide_encoding(stream) is not None


def decode(
    stream: Any,
    path: str | os.PathLike[str],
    longest_line: int | None = LONGEST_LINE,
    *,
    taken: bytes = b"",
    lines: int = 0,
) -> IO[str]:
    """The text of an open file of bytes; see the docstring of this module.

    Args:
        stream: as :func:`open_bytes` returns it.
        path: its name, for messages.
        longest_line: bytes that a line may have; None for a format that is not read line by line.
        taken: UTF-8 that was read from ``stream`` already, and that comes first; without a byte order mark.
        lines: number of lines before ``taken``.
    """
    encoding = None if taken else _wide_encoding(stream)
    source: IO[bytes] = stream
    if longest_line is not None:
        source = cast(IO[bytes], _BoundedLines(stream, display_name(path), longest_line, taken, lines))
    if encoding is not None:
        return io.TextIOWrapper(source, encoding=encoding, newline="")
    return io.TextIOWrapper(source, encoding="utf-8" if taken else "utf-8-sig", errors="surrogateescape", newline="")


@contextmanager
def open_text(
    path: str | os.PathLike[str], progress: ReadCallback | None = None, longest_line: int | None = LONGEST_LINE
) -> Iterator[IO[str]]:
    """Open a text file, decompressed according to its suffix; see the docstring of this module.

    Args:
        path: the file.
        progress: called with the number of (compressed) bytes just read.
        longest_line: bytes that a line may have; None for a format that is not read line by line.

    Raises:
        DataError: the file is missing, truncated or damaged, or has a line that is too long; also raised inside the
            block.
    """
    with open_bytes(path, progress) as stream:
        yield decode(stream, path, longest_line)


def check_text(text: str, where: str) -> None:
    """Check that text from :func:`open_text` consists of characters.

    Args:
        text: one line, or a part of one.
        where: file and line, for the message.

    Raises:
        DataError: it has bytes that are not UTF-8, or NUL characters.
    """
    if "\0" in text:
        raise DataError(
            f"{where}: has NUL characters: a binary file, or UTF-16 without a byte order mark; for the latter, convert"
            " it with iconv -f UTF-16LE -t UTF-8"
        )
    if not text.isascii() and has_undecodable_bytes(text):
        raise DataError(
            f"{where}: not UTF-8; if the file is in Latin-1 (ISO 8859-1), convert it with iconv -f LATIN1 -t UTF-8"
        )


def has_undecodable_bytes(text: str) -> bool:
    """Whether text from :func:`open_text` has bytes that are not UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def as_latin1(text: str) -> str:
    """Text from :func:`open_text` whose bytes are not UTF-8, decoded as Latin-1."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def file_size(path: str | os.PathLike[str]) -> int:
    """Size in bytes of a file, or of ``data.mdb`` of an LMDB directory; 0 for the standard input and pipes.

    Raises:
        DataError: there is no such file.
    """
    if is_stream(path):
        return 0
    path = Path(path)
    with explain_errors(path):
        file = data_file(path)
        if path.is_dir() and not file.is_file():
            raise DataError(f"{path}: a directory, neither a file nor an LMDB store")
        return file.stat().st_size


def data_file(path: Path) -> Path:
    """The file itself, or ``data.mdb`` of an LMDB directory."""
    return path / "data.mdb" if path.is_dir() else path
