"""Tables with a header line.

CSV has RFC 4180's quoting, read strictly: text after a closing quote, a quote that is never closed and a record with
another number of cells than the header are errors. A quoted cell may have line breaks, as a wrapped sequence or list
has them, but not further records.

TSV has no quoting, as IANA defines it: a record is a line, and a cell ends at a tab.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from typing import IO

from tape.errors import DataError
from tape.io.text_files import LONGEST_LINE, check_text

from .record import Row

_NUMBERS = re.compile(r"(?:[\s\d\[\](),.+\-eE]|nan|inf|null|true|false)*", re.IGNORECASE)


def csv_rows(stream: IO[str], name: str) -> Iterator[Row]:
    """Rows of a .csv file; all values are text.

    Raises:
        DataError: wrong quoting, two columns of one name, or a record of another width than the header.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    reader = csv.reader(_checked_lines(stream, name), strict=True, skipinitialspace=True)
    columns: list[str] | None = None
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{name}, line {reader.line_num}: not valid CSV ({error}); a cell with a comma, a quote or a line break"
                ' is written in quotes, and a quote inside it as ""'
            ) from error
        if not cells:
            continue
        if columns is None:
            columns = _columns(cells, name)
            continue
        number += 1
        yield _row(columns, cells, f"{name}, record {number}", _no_records_inside)


def tsv_rows(stream: IO[str], name: str) -> Iterator[Row]:
    """Rows of a .tsv file; all values are text.

    Raises:
        DataError: quoting, two columns of one name, or a record of another width than the header.
    """
    columns: list[str] | None = None
    number = 0
    for line in _checked_lines(stream, name):
        cells = line.rstrip("\r\n").split("\t")
        if columns is None and any(cells):
            columns = _columns(cells, name)
        elif columns is not None and cells != [""]:
            number += 1
            yield _row(columns, cells, f"{name}, record {number}", _no_quotes)


def _checked_lines(stream: IO[str], name: str) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if "\0" in line or not line.isascii():
            check_text(line, f"{name}, line {number}")
        yield line


def _columns(cells: list[str], name: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for place, column in enumerate(columns):
        if column in columns[:place]:
            raise DataError(f"{name}: two columns are named {column[:40]!r}; names must be unique")
    return columns


def _row(columns: list[str], cells: list[str], where: str, check: Callable[[str, str], None]) -> Row:
    if len(cells) != len(columns):
        raise DataError(f"{where}: the header has {len(columns)} columns, this record has {len(cells)}")
    for cell in cells:
        check(cell, where)
    return Row(dict(zip(columns, cells, strict=True)), where)


def _no_records_inside(cell: str, where: str) -> None:
    if ("\n" in cell or "\r" in cell) and "," in cell and not _NUMBERS.fullmatch(cell):
        raise DataError(f"{where}: a quoted cell that contains further lines with commas; is a closing quote missing?")


def _no_quotes(cell: str, where: str) -> None:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        raise DataError(f"{where}: a cell in quotes, which TSV does not have; remove the quotes, or use CSV")
