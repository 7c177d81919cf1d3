"""Streaming readers of protein sequence files in many formats.

- .fasta .fa .faa .fna .ffn .frn: FASTA
- .sto .stk .stockholm: one or more Stockholm alignments, interleaved or not
- .jsonl .json: JSON objects, one per line or in a list; the sequence is ``text``, ``primary`` or ``sequence``
- .csv .tsv: a table with a header line; the sequence is in a column with one of these names
- .txt .tab: one sequence per line, or ``id<TAB>sequence``
- .lmdb: TAPE's LMDB directories

All but LMDB may be compressed, with the additional suffix .gz, .xz or .zst (which needs the package ``zstandard``).
White space inside a sequence ("G C T V") is removed; everything else is left to
:func:`tape.tokenizers.normalize_sequence`. The memory does not grow with the size of the file. For progress bars, the
readers pass the number of bytes that they have read from the (compressed) file to a callback.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

from tape.errors import DataError

from .lmdb_store import LMDBReader
from .text_files import COMPRESSIONS, LONGEST_LINE, ReadCallback, file_size, open_text, split_suffix

SEQUENCE_KEYS = ("text", "primary", "sequence")
IDENTIFIER_KEYS = ("id", "identifier", "name")
_CHUNK_CHARACTERS = 1 << 20
_LONGEST_FIELD = 1 << 27  # the default limit of csv, 128 KiB, is too small for some proteins written with spaces


@dataclass(frozen=True)
class SequenceRecord:
    """One protein of a file.

    Attributes:
        identifier: its name, or its number in the file (from 0) if it has none.
        sequence: the residues as written, without white space. Not empty.
        where: file and record (from 1) for error messages: ``"file.fasta.xz, record 17 (P83570)"``.
    """

    identifier: str
    sequence: str
    where: str


@dataclass(frozen=True)
class LabeledRow:
    """All fields of one record, with file and record number for error messages."""

    fields: dict[str, Any]
    where: str


# --- one parser per format ------------------------------------------------------------------------------------------


def _fasta_entries(path: Path, progress: ReadCallback | None = None) -> Iterator[tuple[str, str]]:
    """(header without ``>``, sequence) pairs."""
    header: str | None = None
    parts: list[str] = []
    with open_text(path, progress) as stream:
        for number, line in enumerate(stream, start=1):
            if line.startswith(">"):
                if header is not None:
                    yield header, "".join(parts)
                header, parts = line[1:], []
            elif header is not None:
                parts.append(line)
            elif line.strip() and not line.startswith(";"):
                raise DataError(f"{path}, line {number}: not FASTA: expected a header line starting with '>'")
    if header is not None:
        yield header, "".join(parts)


def _fasta_records(path: Path, progress: ReadCallback | None = None) -> Iterator[tuple[str, str]]:
    """(first word of the header, sequence) pairs."""
    for header, sequence in _fasta_entries(path, progress):
        yield (header.split(maxsplit=1) or [""])[0], sequence


def _fasta_rows(path: Path, progress: ReadCallback | None = None) -> Iterator[LabeledRow]:
    """Fields of headers such as ``>id fold_label=3``; the sequence is the field ``primary``."""
    for number, (header, sequence) in enumerate(_fasta_entries(path, progress), start=1):
        words = header.split()
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        if words and "=" not in words[0]:
            fields["id"] = words[0]
        yield LabeledRow({**fields, "primary": sequence}, f"{path}, record {number}")


def _stockholm_records(path: Path, progress: ReadCallback | None = None) -> Iterator[tuple[str, str]]:
    """(name, aligned sequence with gaps) pairs. One alignment is in memory at a time, since blocks may interleave."""
    rows: dict[str, list[str]] = {}
    inside = False
    with open_text(path, progress) as stream:
        for number, line in enumerate(stream, start=1):
            words = line.split()
            if line.startswith("# STOCKHOLM"):
                inside = True
            elif not inside and words:
                raise DataError(f"{path}, line {number}: not Stockholm: expected '# STOCKHOLM 1.0'")
            elif words == ["//"]:
                yield from ((name, "".join(parts)) for name, parts in rows.items())
                rows, inside = {}, False
            elif words and not line.startswith("#"):
                if len(words) != 2:
                    raise DataError(f"{path}, line {number}: not Stockholm: expected a name and a sequence")
                rows.setdefault(words[0], []).append(words[1])
    if inside:
        raise DataError(f"{path}: truncated: the last alignment has no closing '//'")


def _text_records(path: Path, progress: ReadCallback | None = None) -> Iterator[tuple[str, str]]:
    """One sequence per line, optionally with an identifier before a tab; empty lines are skipped."""
    with open_text(path, progress) as stream:
        for line in stream:
            if line.strip():
                identifier, tab, sequence = line.rstrip("\r\n").partition("\t")
                yield (identifier.strip(), sequence) if tab else ("", line)


def _json_values(stream: IO[str], path: Path) -> Iterator[Any]:
    """Consecutive JSON values or the elements of one list, without reading the entire file into memory."""
    window = _JsonWindow(stream)
    listed = window.skip(" \t\r\n") == "["
    if listed:
        window.position += 1
    for number in count(start=1):
        rest = window.skip(" \t\r\n,")
        if rest == ("]" if listed else ""):
            return
        try:
            yield window.next_value()
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, record {number}: not valid JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:  # a number with thousands of digits, thousands of nested lists
            raise DataError(f"{path}, record {number}: JSON that can't be read: {error}") from error


class _JsonWindow:
    """A sliding window over the text that is being decoded. It grows only if a value reaches its end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._ended = False
        self.position = 0

    def skip(self, characters: str) -> str:
        """Skip ``characters``; return the first character after them, ``""`` at the end."""
        while True:
            while self.position < len(self._text) and self._text[self.position] in characters:
                self.position += 1
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._read():
                return ""

    def next_value(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self.position)
                if end < len(self._text) or not self._read():  # "12" at the end of the window may be the start of "123"
                    self.position = end
                    return value
            except json.JSONDecodeError:
                if len(self._text) - self.position > _LONGEST_FIELD or not self._read():
                    raise

    def _read(self) -> bool:
        if self._ended:
            return False
        block = self._stream.read(_CHUNK_CHARACTERS)
        self._text, self.position = self._text[self.position :] + block, 0
        self._ended = not block
        return not self._ended


def _json_rows(path: Path, progress: ReadCallback | None = None) -> Iterator[LabeledRow]:
    one_per_line = split_suffix(path)[0] == ".jsonl"
    with open_text(path, progress, LONGEST_LINE if one_per_line else None) as stream:
        if one_per_line:
            values = _json_line_values(stream, path)
        else:
            values = _json_values(stream, path)
        for number, value in enumerate(values, start=1):
            where = f"{path}, record {number}"
            if not isinstance(value, dict):
                raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}")
            yield LabeledRow(value, where)


def _json_line_values(stream: IO[str], path: Path) -> Iterator[Any]:
    for number, line in enumerate(filter(str.strip, stream), start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, record {number}: not valid JSON: {error}") from error
        except (ValueError, RecursionError) as error:  # a number with thousands of digits, thousands of nested lists
            raise DataError(f"{path}, record {number}: JSON that can't be read: {error}") from error


def _table_rows(path: Path, progress: ReadCallback | None = None, delimiter: str = ",") -> Iterator[LabeledRow]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    with open_text(path, progress) as stream:
        reader = csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True)
        for number, fields in enumerate(reader, start=1):
            where = f"{path}, record {number}"
            if None in fields or None in fields.values():
                raise DataError(
                    f"{where}: the header has {len(reader.fieldnames or ())} columns, this record has another number"
                )
            yield LabeledRow({name.strip(): value for name, value in fields.items()}, where)


def _lmdb_rows(path: Path, progress: ReadCallback | None = None) -> Iterator[LabeledRow]:
    with LMDBReader(path) as reader:
        share = file_size(path) // max(1, len(reader))  # bytes per record on average
        for key, fields in enumerate(reader):  # from 0, as the keys of the file and the messages of LMDBReader
            yield LabeledRow(fields, f"{path}, record {key}")
            if progress is not None:
                progress(share)


_FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fna", ".ffn", ".frn")
_PAIR_PARSERS: dict[str, Callable[..., Iterator[tuple[str, str]]]] = {
    **dict.fromkeys(_FASTA_SUFFIXES, _fasta_records),
    **dict.fromkeys((".sto", ".stk", ".stockholm"), _stockholm_records),
    **dict.fromkeys((".txt", ".tab"), _text_records),
}
_ROW_PARSERS: dict[str, Callable[..., Iterator[LabeledRow]]] = {
    **dict.fromkeys(_FASTA_SUFFIXES, _fasta_rows),
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".csv": _table_rows,
    ".tsv": partial(_table_rows, delimiter="\t"),
    ".lmdb": _lmdb_rows,
}
ROW_SUFFIXES = tuple(_ROW_PARSERS)
SEQUENCE_SUFFIXES = tuple({**_PAIR_PARSERS, **_ROW_PARSERS})


# --- public functions -----------------------------------------------------------------------------------------------


def is_sequence_file(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` has a suffix that :func:`read_sequences` can read."""
    return split_suffix(path)[0] in SEQUENCE_SUFFIXES


def read_rows(path: str | os.PathLike[str], progress: ReadCallback | None = None) -> Iterator[LabeledRow]:
    """Yield all fields of each record of a .jsonl, .json, .csv, .tsv, FASTA (compressed or not) or .lmdb file.

    FASTA headers have fields as ``>id name=value name=value``, and the sequence is the field ``primary``.

    Raises:
        DataError: the suffix is unknown, or the file is invalid. Names file and record.
    """
    path = Path(path)
    parser = _ROW_PARSERS.get(split_suffix(path)[0])
    if parser is None:
        raise DataError(f"{path}: unknown suffix; records with fields come as {_list_suffixes(ROW_SUFFIXES)}")
    return parser(path, progress)


def read_sequences(
    path: str | os.PathLike[str],
    json_keys: Sequence[str] = SEQUENCE_KEYS,
    progress: ReadCallback | None = None,
    on_empty: Callable[[str], object] | None = None,
) -> Iterator[SequenceRecord]:
    """Yield the proteins of a file in any format of this module, in file order.

    Args:
        path: the file, or LMDB directory.
        json_keys: names of the field with the sequence in JSON, tables and LMDB; the first one that exists is used.
        progress: called with the number of bytes that were just read; they add up to :func:`file_size`.
        on_empty: called with file and number of an empty record, which is skipped; by default, it is an error.

    Raises:
        DataError: the file is missing, damaged or of unknown format, or a record is empty. Names file and record.
    """
    path = Path(path)
    suffix = split_suffix(path)[0]
    if suffix in _PAIR_PARSERS:
        records = _from_pairs(path, _PAIR_PARSERS[suffix](path, progress))
    elif suffix in _ROW_PARSERS:
        records = _from_rows(_ROW_PARSERS[suffix](path, progress), json_keys)
    else:
        raise DataError(f"{path}: unknown suffix; allowed are {_list_suffixes(SEQUENCE_SUFFIXES)}")
    return _without_empty(records, on_empty or _refuse_empty)


def _list_suffixes(suffixes: Sequence[str]) -> str:
    return f"{' '.join(suffixes)} (or with {' '.join(COMPRESSIONS)} after it)"


def _from_pairs(path: Path, pairs: Iterator[tuple[str, str]]) -> Iterator[SequenceRecord]:
    for number, (identifier, sequence) in enumerate(pairs, start=1):
        where = f"{path}, record {number} ({identifier})" if identifier else f"{path}, record {number}"
        yield _record(identifier or str(number - 1), sequence, where)


def _from_rows(rows: Iterator[LabeledRow], keys: Sequence[str]) -> Iterator[SequenceRecord]:
    for number, row in enumerate(rows):
        key = next((key for key in keys if key in row.fields), None)
        if key is None:
            raise DataError(
                f"{row.where}: no sequence: its fields are {', '.join(row.fields) or 'none'}, not {' or '.join(keys)}"
            )
        sequence = row.fields[key]
        if not isinstance(sequence, str):
            raise DataError(f"{row.where}: {key!r} must be text, not {type(sequence).__name__}")
        named = next((str(row.fields[name]) for name in IDENTIFIER_KEYS if row.fields.get(name) is not None), "")
        where = f"{row.where} ({named})" if named else row.where
        yield _record(named or str(number), sequence, where)


def _record(identifier: str, sequence: str, where: str) -> SequenceRecord:
    return SequenceRecord(identifier, "".join(sequence.split()), where)


def _without_empty(records: Iterator[SequenceRecord], on_empty: Callable[[str], object]) -> Iterator[SequenceRecord]:
    for record in records:
        if record.sequence:
            yield record
        else:
            on_empty(record.where)


def _refuse_empty(where: str) -> None:
    raise DataError(f"{where}: empty record: a header without residues; remove it from the file")
