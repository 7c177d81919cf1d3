"""Sequences whose labels are in a table of their own: both are joined by the id.

Labels, and the column of splits, are read from that table alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tape.errors import DataError, listed, quoted
from tape.io.records import ID_COLUMNS, Nucleotides, Record, RecordOptions, Row, open_records, open_rows
from tape.io.records.formats import has_columns
from tape.io.records.record import identifier_of
from tape.io.text_files import display_name

_SHOWN = 3  # ids in a message
Item = TypeVar("Item", Record, Row)


def read_with_labels(path: Path, labels: Path, options: RecordOptions) -> tuple[list[Record], list[str]]:
    """The proteins of a file that have a row in a table of labels, with its columns as their fields.

    Args:
        path: file of the sequences, in any format of :mod:`tape.io.records`; the id in FASTA is the first word of the
            header.
        labels: the table, in a format with columns.
        options: format of ``path``, its column of sequences, and the column of ids in both files, as far as they have
            columns.

    Returns:
        The records in the order of ``path``, and a line about those that were left out since they have no row.

    Raises:
        DataError: a file can't be read, a record has no id, an id occurs twice in a file, or a row of the table has no
            sequence. Names files, records and ids.
    """
    sequences = options if has_columns(path, options.format) else replace(options, id_column=None)
    records = _by_identifier(
        (record.identifier, record) for record in open_records(path, sequences, nucleotides=Nucleotides.WARN)
    )
    columns = RecordOptions(id_column=options.id_column)
    rows = _by_identifier((identifier_of(row, columns), row) for row in open_rows(labels))
    for file, found in ((path, records), (labels, rows)):
        if not found:
            raise DataError(f"{display_name(file)}: contains no record")
    lost = [name for name in rows if name not in records]
    if lost:
        raise DataError(
            f"{labels}: {len(lost)} of {len(rows)} ids are not in {display_name(path)} ({listed(lost, _SHOWN)}). It has"
            f" ids such as {listed(list(records)[:_SHOWN])}; write them alike, or remove the rows without a sequence"
        )
    unlabeled = [name for name in records if name not in rows]
    notices = []
    if unlabeled:
        notices.append(
            f"{len(unlabeled)} of {len(records)} proteins are left out: {labels} has no row for them"
            f" ({listed(unlabeled, _SHOWN)})"
        )
    return [_joined(record, rows[name]) for name, record in records.items() if name in rows], notices


def _by_identifier(items: Iterable[tuple[str | None, Item]]) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for name, item in items:
        if name is None:
            raise DataError(
                f"{item.where}: no id, by which labels and sequences are joined; a table has it in the column"
                f" {' or '.join(ID_COLUMNS)}, or in that of --id-column, and FASTA in the first word of the header"
            )
        if name in found:
            raise DataError(
                f"{item.where}: the id {quoted(name)} is also that of {found[name].where}, so labels and sequences"
                " can't be joined by it; remove one, or give each its own id"
            )
        found[name] = item
    return found


def _joined(record: Record, row: Row) -> Record:
    return record._replace(fields=row.fields, where=f"{record.where} with {row.where}")
