"""One record of a file of proteins: which of its columns are the sequence and the id, and which ids are allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tape.errors import DataError, listed, quoted

SEQUENCE_COLUMNS = ("text", "primary", "sequence")
ID_COLUMNS = ("id", "identifier", "name")
# Of tables from elsewhere, in any letter case: ProteinGym has mutated_sequence; UniProt has Entry and Sequence.
_OTHER_SEQUENCE_COLUMNS = (*SEQUENCE_COLUMNS, "seq", "mutated_sequence")
_OTHER_ID_COLUMNS = ("id", "identifier", "entry")  # Name is often that of a gene or an organism
LONGEST_ID = 4096  # characters
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_GAPS = str.maketrans("", "", "-.")


@dataclass(frozen=True)
class RecordOptions:
    """How a file of records is read.

    Attributes:
        format: a name of :data:`tape.io.records.formats.FORMATS`, with the suffix of a compression after it where the
            file is compressed (``csv.gz``); None: according to the file's suffix.
        sequence_column: column with the sequence in JSON, tables and LMDB; None: the one of :func:`sequence_columns`.
        id_column: column with the id; None: the first of :func:`id_columns` that has a value.
    """

    format: str | None = None
    sequence_column: str | None = None
    id_column: str | None = None


class Row(NamedTuple):
    """All fields of one record, before its sequence and id are chosen.

    Attributes:
        fields: column -> value: text in tables and FASTA, any JSON value in JSON, any object in LMDB.
        where: file and number of the record, for messages.
        aligned: whether the sequence is a row of an alignment, in which ``-`` and ``.`` are gaps.
        has_header: whether the record is a header with the residues after it, as in FASTA.
    """

    fields: Mapping[str, Any]
    where: str
    aligned: bool = False
    has_header: bool = False


class Record(NamedTuple):
    """One protein of a file.

    Attributes:
        identifier: its id; None if it has none.
        sequence: the residues as written, without white space. Not empty.
        where: file, record (from 1) and id for error messages: ``"file.fasta.xz, record 17 (P83570)"``.
        number: its number in the file, from 0.
        fields: its other columns, if they were asked for.
        aligned: whether the sequence is a row of an alignment, in which ``-`` and ``.`` are gaps.
    """

    identifier: str | None
    sequence: str
    where: str
    number: int = 0
    fields: Mapping[str, Any] = {}
    aligned: bool = False

    @property
    def name(self) -> str:
        """The id, or the number if there is none."""
        return str(self.number) if self.identifier is None else self.identifier

    @property
    def residues(self) -> str:
        """The sequence, without the gaps of an alignment. Insertions (lower case in a3m) are residues."""
        return self.sequence.translate(_GAPS) if self.aligned else self.sequence


def sequence_columns(names: Iterable[str]) -> list[str]:
    """The columns among ``names`` that may be the sequence: of :data:`SEQUENCE_COLUMNS`, or else of common names.

    Where none of the former is there, they count in any letter case, and so do ``seq`` and ``mutated_sequence``.
    """
    return _columns(names, SEQUENCE_COLUMNS, _OTHER_SEQUENCE_COLUMNS)


def id_columns(names: Iterable[str]) -> list[str]:
    """The columns among ``names`` that may be the id: of :data:`ID_COLUMNS`, or else of common names.

    Where none of the former is there, ``id``, ``identifier`` and ``entry`` count in any letter case.
    """
    return _columns(names, ID_COLUMNS, _OTHER_ID_COLUMNS)


def _columns(names: Iterable[str], exact: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    names = list(names)
    found = [name for name in exact if name in names]
    if found:
        return found
    found = [name for name in names if isinstance(name, str) and name.lower() in others]
    return sorted(found, key=lambda name: others.index(name.lower()))


def sequence_column(row: Row, options: RecordOptions) -> str:
    """The column of ``row`` that contains its sequence.

    Args:
        row: a row of a file.
        options: may name the column.

    Raises:
        DataError: there is none, or several candidates have a value. Names them and the option that chooses one.
    """
    if options.sequence_column is not None:
        if options.sequence_column not in row.fields:
            raise DataError(f"{row.where}: no column {quoted(options.sequence_column)}; it has {listed(row.fields)}")
        return options.sequence_column
    present = sequence_columns(row.fields)
    if len(present) == 1:
        return present[0]
    present = [name for name in present if row.fields[name] is not None] or present[:1]
    if not present:
        raise DataError(
            f"{row.where}: no sequence: its fields are {listed(row.fields)}, not {' or '.join(SEQUENCE_COLUMNS)};"
            " --sequence-column NAME reads another column"
        )
    if len(present) > 1:
        raise DataError(
            f"{row.where}: {' and '.join(map(repr, present))} may both be the sequence; choose one with"
            " --sequence-column NAME"
        )
    return present[0]


def identifier_of(row: Row, options: RecordOptions) -> str | None:
    """The id of a record; None if it has none.

    Raises:
        DataError: the column that was asked for does not exist, or the id can't be used; see :func:`check_identifier`.
    """
    if options.id_column is not None:
        if options.id_column not in row.fields:
            raise DataError(f"{row.where}: no column {quoted(options.id_column)} with ids; it has {listed(row.fields)}")
        return _as_identifier(row.fields[options.id_column], row.where)
    for name in id_columns(row.fields):
        value = row.fields[name]
        if value is None or value == "":
            continue
        try:
            return _as_identifier(value, row.where)
        except DataError:
            if name in ID_COLUMNS:  # a column Entry may have anything
                raise
    return None


def _as_identifier(value: Any, where: str) -> str | None:
    """The id that a cell has; None if it is empty."""
    if value is None:
        return None
    if isinstance(value, str):
        identifier = value.strip()
        return check_identifier(identifier, where) if identifier else None
    if isinstance(value, bytes):  # in TAPE's published LMDB files
        value = value.decode("utf-8", "replace")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{where}: an id is text or a number, not {type(value).__name__}")
    return check_identifier(str(value).strip(), where)


def check_identifier(identifier: str, where: str) -> str:
    """Check that an id can be stored in every output file, and return it.

    Args:
        identifier: the id.
        where: file and record, for the message.

    Raises:
        DataError: it has control characters or half of a surrogate pair, or is longer than :data:`LONGEST_ID`.
    """
    if len(identifier) > LONGEST_ID:
        raise DataError(f"{where}: its id has {len(identifier):,} characters; at most {LONGEST_ID:,} are allowed")
    if not identifier.isprintable():
        if _CONTROL_CHARACTER.search(identifier):
            raise DataError(f"{where}: its id {identifier[:40]!r} has control characters, such as NUL; remove them")
        if _LONE_SURROGATE.search(identifier):
            raise DataError(
                f"{where}: its id {identifier[:40]!r} has half of a surrogate pair, which no file can store"
            )
    return identifier


def names_of(identifiers: Iterable[str | None]) -> list[str]:
    """A name for each record: its id, or its number from 0 if it has none.

    A number that is the id of another record gets ``unnamed_`` before it.
    """
    identifiers = list(identifiers)
    given = {identifier for identifier in identifiers if identifier is not None}
    names = []
    for number, identifier in enumerate(identifiers):
        name = str(number) if identifier is None else identifier
        while identifier is None and name in given:
            name = f"unnamed_{name}"
        names.append(name)
    return names


def record_of(row: Row, options: RecordOptions, number: int, with_fields: bool) -> Record:
    """The record of a row; its sequence may be empty.

    Args:
        row: a row of a file.
        options: may name the columns of sequence and id.
        number: number of the record in its file, from 0.
        with_fields: whether the record keeps the row's other columns.

    Raises:
        DataError: it has no sequence, several candidates for it, or an id that can't be used.
    """
    column = sequence_column(row, options)
    sequence = row.fields[column]
    if not isinstance(sequence, str):
        raise DataError(f"{row.where}: {column!r} must be text, not {type(sequence).__name__}")
    identifier = identifier_of(row, options)
    others = {name: value for name, value in row.fields.items() if name != column} if with_fields else {}
    where = with_identifier(row.where, identifier)
    return Record(identifier, "".join(sequence.split()), where, number, others, row.aligned)


def with_identifier(where: str, identifier: str | None) -> str:
    """File, record and id for error messages; see :attr:`Record.where`."""
    if identifier is None:
        return where
    return f"{where} ({identifier if len(identifier) <= 80 else f'{identifier[:77]}...'})"
