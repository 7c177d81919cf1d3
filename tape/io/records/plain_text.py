"""Text files: one sequence per line, optionally with an id before a tab. Empty lines are skipped.

A sequence may be written in blocks of one length with blanks between them (of ten residues, for example). Other lines
with blanks are refused, because their first word is an id rather than residues.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from tape.errors import DataError, quoted
from tape.io.text_files import check_text

from .record import Row

_BLOCKS_OF_TWO = (1, 10)  # lengths of blocks for which a line of only two is a sequence


def text_rows(stream: IO[str], name: str) -> Iterator[Row]:
    """Rows with ``primary`` and, if there is a tab, ``id``.

    Raises:
        DataError: a line is a header or comment of FASTA, or has several tabs.
    """
    record = 0
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        if "\0" in line or not line.isascii():
            check_text(line, f"{name}, line {number}")
        if line.lstrip().startswith((">", ";")):
            raise DataError(
                f"{name}, line {number}: begins with {line.lstrip()[0]!r} as a line of FASTA does, but the file is read"
                " as one sequence per line; --format fasta reads it as FASTA"
            )
        record += 1
        identifier, tab, sequence = line.rstrip("\r\n").partition("\t")
        if "\t" in sequence.strip():
            raise DataError(
                f"{name}, line {number}: more than one tab, but a line is a sequence or id<TAB>sequence; a table"
                " needs a header line with the names of its columns, and --format tsv"
            )
        if not tab and not _is_in_blocks(line.split()):
            raise DataError(
                f"{name}, line {number}: {quoted(line.strip())} has blanks, but a line is a sequence or"
                " id<TAB>sequence; separate an id from its sequence by a tab, or remove the blanks"
            )
        fields = {"id": identifier.strip(), "primary": sequence} if tab else {"primary": line}
        yield Row(fields, f"{name}, record {record}")


def _is_in_blocks(words: list[str]) -> bool:
    """Whether the words of a line are blocks of one sequence: all of one length, the last may be shorter."""
    lengths = [len(word) for word in words]
    if len(set(lengths[:-1])) > 1 or lengths[-1] > lengths[0]:
        return False
    return len(words) != 2 or lengths[0] in _BLOCKS_OF_TWO
