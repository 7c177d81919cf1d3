"""Opening files of records: :func:`open_records` for proteins, :func:`open_rows` for tables without a sequence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from tape.errors import DataError, quoted
from tape.io.lmdb_store import LMDBReader
from tape.io.text_files import (
    LONGEST_LINE,
    Digest,
    ReadCallback,
    data_file,
    decode,
    display_name,
    file_size,
    open_bytes,
    split_suffix,
)

from .fasta import a3m_rows, fasta_rows
from .formats import (
    LABELED_FORMATS,
    LABELED_SUFFIXES,
    NUCLEOTIDE_SUFFIXES,
    format_of_content,
    format_of_suffix,
    list_suffixes,
    parse_format,
)
from .json_values import json_rows, jsonl_rows
from .nucleotides import ENOUGH_LETTERS, NucleotideCounter
from .parquet import parquet_rows
from .plain_text import text_rows
from .record import Record, RecordOptions, Row, record_of, sequence_column
from .residue_blocks import ResidueBlock, fasta_blocks
from .stockholm import stockholm_rows
from .tables import csv_rows, tsv_rows

Item = TypeVar("Item")
_DIGEST_BYTES = 1 << 20
_TEXT_PARSERS: dict[str, Callable[[IO[str], str], Iterator[Row]]] = {
    "stockholm": stockholm_rows,
    "jsonl": jsonl_rows,
    "json": json_rows,
    "csv": csv_rows,
    "tsv": tsv_rows,
    "text": text_rows,
}


class Nucleotides(Enum):
    """What is done with a file of nucleotide sequences."""

    WARN = "warn"
    REFUSE = "refuse"
    ALLOW = "allow"


def open_records(
    path: str | os.PathLike[str],
    options: RecordOptions = RecordOptions(),
    *,
    with_fields: bool = False,
    progress: ReadCallback | None = None,
    on_empty: Callable[[str], object] | None = None,
    nucleotides: Nucleotides = Nucleotides.WARN,
    digest: Digest | None = None,
) -> Iterator[Record]:
    """Yield the proteins of a file in any format of :mod:`tape.io.records`, in file order.

    Args:
        path: the file, an LMDB directory, a pipe, or ``-`` for the standard input.
        options: format, and columns of the sequence and the id.
        with_fields: keep the other columns, such as labels, in the records.
        progress: called with the number of (compressed) bytes that were just read; they add up to
            :func:`tape.io.text_files.file_size`.
        on_empty: called with file and number of an empty record, which is skipped; by default, it is an error.
        nucleotides: what to do if almost all letters are those of nucleotides.
        digest: hash object to which the bytes of the file are added.

    Raises:
        DataError: the file is missing, damaged or of unknown format, a record is empty, or its sequence or id can't be
            determined. Names file and record.
    """
    for item in _open_items(path, options, with_fields, progress, on_empty, nucleotides, digest):
        if isinstance(item, Record):
            yield item
        else:
            yield from item.records()


def open_blocks(
    path: str | os.PathLike[str],
    options: RecordOptions = RecordOptions(),
    *,
    progress: ReadCallback | None = None,
    on_empty: Callable[[str], object] | None = None,
    nucleotides: Nucleotides = Nucleotides.WARN,
    digest: Digest | None = None,
) -> Iterator[Record | ResidueBlock]:
    """As :func:`open_records`, but most records of FASTA files come in blocks, without an object for each."""
    return _open_items(path, options, False, progress, on_empty, nucleotides, digest)


def _open_items(
    path: str | os.PathLike[str],
    options: RecordOptions,
    with_fields: bool,
    progress: ReadCallback | None,
    on_empty: Callable[[str], object] | None,
    nucleotides: Nucleotides,
    digest: Digest | None,
) -> Iterator[Record | ResidueBlock]:
    in_blocks = not with_fields and options.sequence_column in (None, "primary") and options.id_column in (None, "id")
    read_fasta: Callable[[Any, str], Iterator[Row | ResidueBlock]]
    read_fasta = fasta_blocks if in_blocks else partial(fasta_rows, with_fields=with_fields)
    rows = _rows(path, options, read_fasta, progress, digest)
    items = _records(rows, options, with_fields, on_empty)
    return items if nucleotides == Nucleotides.ALLOW else _without_nucleotides(items, path, nucleotides)


def open_rows(
    path: str | os.PathLike[str], options: RecordOptions = RecordOptions(), progress: ReadCallback | None = None
) -> Iterator[Row]:
    """Yield all fields of each record of a file with labels; a sequence is not required.

    FASTA headers have fields as ``>id name=value name=value``, and the sequence is the field ``primary``.

    Args:
        path: .jsonl, .json, .csv, .tsv, FASTA (compressed or not) or .lmdb.
        options: only the format is used.
        progress: see :func:`open_records`.

    Raises:
        DataError: the format has no fields, or the file is invalid. Names file and record.
    """
    chosen = format_of_suffix(path) if options.format is None else parse_format(options.format)[0]
    if chosen is None:
        raise DataError(
            f"{display_name(path)}: unknown suffix; records with fields come as {list_suffixes(LABELED_SUFFIXES)};"
            " rename the file, or give --format in commands that have it"
        )
    if chosen not in LABELED_FORMATS:
        raise DataError(
            f"{display_name(path)}: records of {chosen} have no fields; use {list_suffixes(LABELED_SUFFIXES)}"
        )
    return _rows(path, options, partial(fasta_rows, with_fields=True), progress)


def _rows(
    path: str | os.PathLike[str],
    options: RecordOptions,
    read_fasta: Callable[[Any, str], Iterator[Item]],
    progress: ReadCallback | None,
    digest: Digest | None = None,
) -> Iterator[Row | Item]:
    name, compression = (None, None) if options.format is None else parse_format(options.format)
    name = name or format_of_suffix(path)
    if name == "lmdb":
        yield from _lmdb_rows(Path(path), options, progress, digest)
        return
    if name == "parquet":
        with open_bytes(path, progress, compression="", digest=digest) as source:
            while source.read(_DIGEST_BYTES) and (progress is not None or digest is not None):
                pass
        yield from parquet_rows(path)
        return
    with open_bytes(path, progress, compression=compression, digest=digest) as source:
        if name is None or (name == "text" and options.format is None):
            name = format_of_content(path, source)
        shown = display_name(path)
        if name == "fasta":
            yield from read_fasta(source, shown)
        elif name == "a3m":
            yield from a3m_rows(source, shown)
        else:
            stream = decode(source, path, None if name == "json" else LONGEST_LINE)
            yield from _TEXT_PARSERS[name](stream, shown)
        if digest is not None:
            while source.read1():  # what follows the last record, such as a closing bracket
                pass


def _lmdb_rows(
    path: Path, options: RecordOptions, progress: ReadCallback | None, digest: Digest | None
) -> Iterator[Row]:
    with LMDBReader(path) as reader:
        share = file_size(path) // max(1, len(reader))  # bytes per record on average
        for key, fields in enumerate(reader):  # from 0, as the keys of the file and the messages of LMDBReader
            if "primary" in fields and options.sequence_column is None:  # TAPE's column, whatever else there is
                fields = {name: value for name, value in fields.items() if name not in ("text", "sequence")}
            yield Row(fields, f"{path}, record {key}")
            if progress is not None:
                progress(share)
    if digest is not None:
        with open_bytes(data_file(path), compression="", digest=digest) as source:
            while source.read(_DIGEST_BYTES):
                pass


def _records(
    rows: Iterator[Row | ResidueBlock],
    options: RecordOptions,
    with_fields: bool,
    on_empty: Callable[[str], object] | None,
) -> Iterator[Record | ResidueBlock]:
    number = 0
    for row in rows:
        if isinstance(row, ResidueBlock):
            yield row
            number += len(row)
            continue
        record = record_of(row, options, number, with_fields)
        number += 1
        if record.sequence:
            yield record
        elif on_empty is not None:
            on_empty(record.where)
        else:
            column = "" if row.has_header else quoted(sequence_column(row, options))
            found = f"no residues in column {column}" if column else "a header without residues"
            raise DataError(f"{record.where}: empty record: {found}; remove it from the file")


def _without_nucleotides(
    items: Iterator[Record | ResidueBlock], path: str | os.PathLike[str], nucleotides: Nucleotides
) -> Iterator[Record | ResidueBlock]:
    counter = NucleotideCounter()
    report = counter.refuse if nucleotides == Nucleotides.REFUSE else counter.warn
    is_reported = split_suffix(path)[0] in NUCLEOTIDE_SUFFIXES
    if is_reported:
        report(path)
    for item in () if is_reported else items:
        counter.add(item.sequence if isinstance(item, Record) else item.residues)
        yield item
        if counter.letters >= ENOUGH_LETTERS:
            break
    if not is_reported:  # early, before hours of work
        report(path)
    yield from items
