"""Stockholm alignments, any number per file, interleaved or not. Lines that begin with ``#`` are annotations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from tape.errors import DataError
from tape.io.text_files import check_text

from .record import Row


def stockholm_rows(stream: IO[str], name: str) -> Iterator[Row]:
    """Rows with ``id`` and the aligned ``primary``.

    One alignment is in memory at a time, since its blocks may interleave.

    Raises:
        DataError: not Stockholm, or truncated. Names the file, and the line where there is one.
    """
    sequences: dict[str, list[str]] = {}
    inside, records = False, 0
    for number, line in enumerate(stream, start=1):
        where = f"{name}, line {number}"
        words = line.split()
        if line.startswith("# STOCKHOLM"):
            inside = True
        elif not inside and words:
            check_text(line, where)
            raise DataError(f"{where}: not Stockholm: expected '# STOCKHOLM 1.0'")
        elif words == ["//"]:
            for key, parts in sequences.items():
                records += 1
                yield Row(
                    {"id": key, "primary": "".join(parts)}, f"{name}, record {records}", aligned=True, has_header=True
                )
            sequences, inside = {}, False
        elif words and not line.startswith("#"):
            check_text(line, where)
            if len(words) != 2:
                raise DataError(f"{where}: not Stockholm: expected a name and a sequence")
            sequences.setdefault(words[0], []).append(words[1])
    if inside:
        raise DataError(f"{name}: truncated: the last alignment has no closing '//'")
