"""Many proteins of a FASTA file at once, without an object for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .fasta import COMMENTS, identifier_in, rows_of_part
from .fasta_blocks import FastaBlock, FastaLines, fasta_parts
from .record import LONGEST_ID, Record, Row, with_identifier

_SPACE = _FIRST_PRINTABLE = 32  # of ASCII
_DELETE = b"\x7f"  # the control character beyond the printable ones


@dataclass(frozen=True)
class ResidueBlock:
    """Consecutive records of a FASTA file, n of them, none of which is empty; their ids are allowed.

    Attributes:
        name: name of the file, for messages.
        first: number of the first record in its file, from 0.
        codes: (sum of sizes,) uint8: ASCII codes of the residues of all records, without white space.
        sizes: (n,) number of residues of each record.
    """

    name: str
    first: int
    codes: np.ndarray
    sizes: np.ndarray
    _content: FastaBlock

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def residues(self) -> str:
        """The sequences, one after the other."""
        return self.codes.tobytes().decode("ascii")

    def records(self) -> Iterator[Record]:
        """The records one by one."""
        residues, start = self.residues, 0
        prefix = f"{self.name}, record "
        ends = np.cumsum(self.sizes).tolist()
        for number, (header, end) in enumerate(zip(self._content.header_lines(), ends, strict=True), start=self.first):
            identifier = identifier_in(header)
            where = with_identifier(f"{prefix}{number + 1}", identifier)
            yield Record(identifier, residues[start:end], where, number)
            start = end

    def record(self, index: int) -> Record:
        """One record, for a message about it.

        Args:
            index: its number in this block, from 0.
        """
        header, lines = self._content.entry(index)
        identifier = identifier_in(header)
        number = self.first + index
        where = with_identifier(f"{self.name}, record {number + 1}", identifier)
        return Record(identifier, "".join(lines.split()), where, number)


def residue_block(part: FastaBlock | FastaLines, name: str, first: int) -> ResidueBlock | None:
    """The block of residues of a part of a FASTA file; None if its records must be read and checked one by one.

    Args:
        part: a part of the file.
        name: the file's name, for messages.
        first: number of the first record, from 0.
    """
    if not isinstance(part, FastaBlock):
        return None
    content, sizes = part.content, part.sizes
    controls = np.count_nonzero(np.frombuffer(content, dtype=np.uint8) < _FIRST_PRINTABLE)
    if controls != part.line_ends or _DELETE in content:
        return None
    if (part.starts - part.lines[part.headers]).max() > LONGEST_ID or not sizes.all():
        return None
    codes = part.residues()
    return None if codes.min() == _SPACE else ResidueBlock(name, first, codes, sizes, part)


def fasta_blocks(source: Any, name: str) -> Iterator[Row | ResidueBlock]:
    """The records of a FASTA file, in blocks as far as possible.

    Args:
        source: the file, opened with :func:`tape.io.text_files.open_bytes`.
        name: its name, for messages.
    """
    first = 0
    for part in fasta_parts(source, name, COMMENTS):
        block = residue_block(part, name, first)
        if block is not None:
            yield block
            first += len(block)
            continue
        for row in rows_of_part(part, name, first + 1):
            yield row
            first += 1
