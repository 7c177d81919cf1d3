"""FASTA and a3m.

A record is a header line, which begins with ``>``, and any number of lines with residues. Lines that begin with ``;``
are comments. The id is the first word of the header, unless that has the form ``name=value``; such words are fields.
Headers may be in Latin-1.

a3m (HH-suite) is FASTA of an alignment: gaps are ``-`` and ``.``, and lower case marks insertions relative to the first
sequence. Lines that begin with ``#`` are comments, and records named ``ss_pred``, ``ss_conf``, ``ss_dssp``,
``sa_dssp``, ``aa_dssp`` and ``aa_pred`` annotate the alignment; both are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tape.errors import DataError
from tape.io.text_files import LONGEST_LINE, as_latin1, check_text, has_undecodable_bytes

from .fasta_blocks import FastaBlock, FastaLines, fasta_parts
from .record import Row

COMMENTS, A3M_COMMENTS = b";", b";#"
_A3M_ANNOTATIONS = frozenset({"ss_pred", "ss_conf", "ss_dssp", "sa_dssp", "aa_dssp", "aa_pred"})
_FIELD = re.compile(r"[A-Za-z_][\w.-]*=")


def fasta_rows(source: Any, name: str, with_fields: bool = False) -> Iterator[Row]:
    """Rows with ``primary`` and, if the header has one, ``id``.

    Args:
        source: the file, opened with :func:`tape.io.text_files.open_bytes`.
        name: its name, for messages.
        with_fields: also read fields from headers such as ``>id fold_label=3``.
    """
    first = 1
    for part in fasta_parts(source, name, COMMENTS):
        for number, row in enumerate(rows_of_part(part, name, first, with_fields), start=first):
            yield row
            first = number + 1


def rows_of_part(part: FastaBlock | FastaLines, name: str, first: int, with_fields: bool = False) -> Iterator[Row]:
    """The rows of a part of a file; see :func:`fasta_rows`.

    Args:
        part: a part of a FASTA file.
        name: name of the file, for messages.
        first: number of the first record, from 1.
        with_fields: see :func:`fasta_rows`.
    """
    prefix = f"{name}, record "
    for number, (header, sequence) in enumerate(_entries(part, name, COMMENTS), start=first):
        yield Row(_fields(header, sequence, with_fields), f"{prefix}{number}", has_header=True)


def a3m_rows(source: Any, name: str) -> Iterator[Row]:
    """Rows with ``primary`` and, if the header has one, ``id``; annotations of the alignment are skipped."""
    number = 0
    for part in fasta_parts(source, name, A3M_COMMENTS):
        for header, sequence in _entries(part, name, A3M_COMMENTS):
            fields = _fields(header, sequence, False)
            if fields.get("id") not in _A3M_ANNOTATIONS:
                number += 1
                yield Row(fields, f"{name}, record {number}", aligned=True, has_header=True)


def identifier_in(header: str) -> str | None:
    """The id in a header without ``>``; None if it has none."""
    word = header.split(None, 1)[:1]
    return None if not word or ("=" in word[0] and _FIELD.match(word[0])) else word[0]


def _fields(header: str, sequence: str, with_fields: bool) -> dict[str, str]:
    fields = dict(word.split("=", 1) for word in header.split() if _FIELD.match(word)) if with_fields else {}
    identifier = identifier_in(header)
    if identifier is not None:
        fields["id"] = identifier
    fields["primary"] = sequence
    return fields


def _entries(part: FastaBlock | FastaLines, name: str, comments: bytes) -> Iterator[tuple[str, str]]:
    """(header without ``>``, lines of the sequence joined) of each record."""
    if isinstance(part, FastaBlock):
        return part.entries()
    return _entries_of_lines(part, name, tuple(map(chr, comments)))


def _entries_of_lines(part: FastaLines, name: str, comments: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    header: str | None = None
    lines: list[str] = []
    start = size = 0
    for number, line in enumerate(part.stream, start=part.first):
        if line.startswith(">"):
            if header is not None:
                yield header, _sequence(lines, name, start)
            header, lines, start, size = line[1:], [], number + 1, 0
            if not line.isascii() or "\0" in line:
                header = _header(line, f"{name}, line {number}")
        elif line.startswith(comments):
            lines.append("")  # keeps the numbers of lines right
        elif header is not None:
            if ">" in line:
                raise DataError(
                    f"{name}, line {number}: '>' inside a line of residues; a header has it as its first character"
                )
            size += len(line)
            if size > LONGEST_LINE:
                raise DataError(
                    f"{name}, line {number}: a record of more than {LONGEST_LINE:,} characters, the limit; this is not"
                    " a file of proteins"
                )
            lines.append(line)
        elif line.strip():
            check_text(line, f"{name}, line {number}")
            raise DataError(f"{name}, line {number}: not FASTA: expected a header line starting with '>'")
    if header is not None:
        yield header, _sequence(lines, name, start)


def _header(line: str, where: str) -> str:
    if has_undecodable_bytes(line):
        line = as_latin1(line)
    check_text(line, where)
    return line[1:]


def _sequence(lines: list[str], name: str, start: int) -> str:
    sequence = "".join(lines)
    if not sequence.isascii() or "\0" in sequence:
        for number, line in enumerate(lines, start=start):
            check_text(line, f"{name}, line {number}")
    return sequence
