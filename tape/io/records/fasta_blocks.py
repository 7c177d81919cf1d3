"""Blocks of FASTA: many records at a time, whose lines are found and checked by numpy instead of one by one.

Almost all files consist of nothing but headers and residues in ASCII. Their blocks are parsed as a whole. Anything
else (comments, Latin-1, lines that end in a carriage return alone, ``>`` among residues, records of megabytes) is left
to the parser of lines in :mod:`.fasta`, which also reports errors.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from tape.io.text_files import decode, has_wide_encoding

_BLOCK_BYTES = 1 << 20
_LONGEST_BLOCK = 1 << 23  # bytes without the beginning of a record, after which the file is read line by line
_UTF8_MARK = b"\xef\xbb\xbf"
_NEWLINE, _HEADER = b"\n>"


@dataclass(frozen=True)
class FastaBlock:
    """Consecutive records, n of them in m lines, in ASCII and without comments.

    Attributes:
        content: header lines and lines of residues.
        lines: (m + 1,) position of the first character of each line, then the number of characters.
        ends: (m,) position after the last character of each line, not counting those that end it.
        headers: (n,) number of each line that is a header, from 0.
    """

    content: bytes
    lines: np.ndarray
    ends: np.ndarray
    headers: np.ndarray

    def __len__(self) -> int:
        return len(self.headers)

    @property
    def starts(self) -> np.ndarray:
        """(n,) position of the first line after each header."""
        return self.lines[self.headers + 1]

    @property
    def stops(self) -> np.ndarray:
        """(n,) position after the last line of each record."""
        return self.lines[np.append(self.headers[1:], len(self.ends))]

    @property
    def newlines(self) -> int:
        """Number of complete lines."""
        return len(self.ends) - int(self.ends[-1] == len(self.content))

    @property
    def line_ends(self) -> int:
        """Number of characters that end lines."""
        return int((self.lines[1:] - self.ends).sum())

    @property
    def sizes(self) -> np.ndarray:
        """(n,) number of characters of each sequence, without the ends of its lines."""
        lengths = self.ends - self.lines[:-1]
        lengths[self.headers] = 0
        return np.add.reduceat(lengths, self.headers)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Header without ``>``, and lines of residues, of each record."""
        content = self.content.decode("ascii")
        bounds = zip(self.starts.tolist(), self.stops.tolist(), strict=True)
        return zip(self.header_lines(), (content[start:stop] for start, stop in bounds), strict=True)

    def entry(self, index: int) -> tuple[str, str]:
        """Header without ``>``, and lines of residues, of one record."""
        header = int(self.lines[self.headers[index]]) + 1
        start, stop = int(self.starts[index]), int(self.stops[index])
        return self.content[header:start].decode("ascii"), self.content[start:stop].decode("ascii")

    def header_lines(self) -> list[str]:
        """(n,) the headers without ``>``."""
        content = self.content.decode("ascii")
        bounds = zip((self.lines[self.headers] + 1).tolist(), self.starts.tolist(), strict=True)
        return [content[start:stop] for start, stop in bounds]

    def residues(self) -> np.ndarray:
        """(sum of sizes,) uint8: codes of the characters of all sequences, without the ends of lines."""
        kept = np.tile([True, False], (len(self.ends), 1))  # characters of each line, and those that end it
        kept[self.headers, 0] = False
        counts = np.stack([self.ends - self.lines[:-1], self.lines[1:] - self.ends], axis=1)
        return np.frombuffer(self.content, dtype=np.uint8)[np.repeat(kept.ravel(), counts.ravel())]


@dataclass(frozen=True)
class FastaLines:
    """Records that are read line by line.

    Attributes:
        stream: their text.
        first: number of the first line in its file, from 1.
    """

    stream: IO[str]
    first: int


def fasta_parts(source: Any, name: str, comments: bytes) -> Iterator[FastaBlock | FastaLines]:
    """The parts of a FASTA file, in order. Each must be read before the next.

    Args:
        source: the file, opened with :func:`tape.io.text_files.open_bytes`.
        name: its name, for messages.
        comments: first characters of comment lines.
    """
    if has_wide_encoding(source):
        yield FastaLines(decode(source, name), 1)
        return
    pending, line = source.read(len(_UTF8_MARK)).removeprefix(_UTF8_MARK), 1
    while content := source.read(_BLOCK_BYTES):
        pending += content
        end = _last_record(pending)
        if end:
            content, pending = pending[:end], pending[end:]
            part = _part(content, line, comments)
            yield part
            line += part.newlines if isinstance(part, FastaBlock) else _count_lines(content)
        elif len(pending) > _LONGEST_BLOCK:
            yield FastaLines(decode(source, name, taken=pending, lines=line - 1), line)
            return
    if pending:
        yield _part(pending, line, comments)


def _part(content: bytes, line: int, comments: bytes) -> FastaBlock | FastaLines:
    block = parse_block(content, comments)
    if block is not None:
        return block
    return FastaLines(io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogateescape", newline=""), line)


def _count_lines(content: bytes) -> int:
    return content.count(b"\n") + (content.count(b"\r") - content.count(b"\r\n") if b"\r" in content else 0)


def _last_record(content: bytes) -> int:
    """Position of the last ``>`` that begins a line, except for the first line; 0 if there is none."""
    end = content.rfind(b"\n>")
    return (end if end >= 0 else content.rfind(b"\r>")) + 1


def parse_block(content: bytes, comments: bytes) -> FastaBlock | None:
    """Find the records of a block.

    Args:
        content: lines, the first of which is that of a record.
        comments: first characters of comment lines.

    Returns:
        None if it has anything but headers and residues in ASCII, in lines that end alike.
    """
    if content[0] != _HEADER or not content.isascii() or b"\0" in content:
        return None
    codes = np.frombuffer(content, dtype=np.uint8)
    after = np.flatnonzero(codes == _NEWLINE) + 1  # positions after complete lines
    width = 1
    if b"\r" in content:
        if not content.count(b"\r\n") == content.count(b"\r") == len(after):
            return None
        width = 2
    ends = after - width
    if content[-1] != _NEWLINE:
        after, ends = np.append(after, len(codes)), np.append(ends, len(codes))
    lines = np.append(0, after)
    kinds = codes[lines[:-1]]
    headers = np.flatnonzero(kinds == _HEADER)
    if any((kinds == comment).any() for comment in comments) or not _are_in_lines(codes, _HEADER, headers, ends):
        return None
    return FastaBlock(content, lines, ends, headers)


def _are_in_lines(codes: np.ndarray, code: int, allowed: np.ndarray, ends: np.ndarray) -> bool:
    """Whether a character, which is in each of these lines, is in no other."""
    found = codes == code
    if np.count_nonzero(found) == len(allowed):
        return True
    return bool(np.isin(np.searchsorted(ends, np.flatnonzero(found)), allowed).all())
