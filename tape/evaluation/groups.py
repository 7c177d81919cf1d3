"""A table of the groups of proteins, such as families or designs, over which intervals are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tape.errors import DataError, listed, quoted
from tape.io.records import ID_COLUMNS, RecordOptions, Row, open_rows
from tape.io.records.record import identifier_of

GROUP_COLUMN = "group"
_SHOWN = 3  # ids in a message


@dataclass(frozen=True)
class Groups:
    """The groups of a table's proteins.

    Attributes:
        path: the table.
        of: id of a protein -> its group.
    """

    path: Path
    of: dict[str, str]

    def numbers(self, identifiers: Sequence[str]) -> np.ndarray:
        """(N,) numbers of the groups of N proteins, from 0.

        Raises:
            DataError: a protein is not in the table, or all are in one group. Names the file.
        """
        lost = [name for name in identifiers if name not in self.of]
        if lost:
            raise DataError(
                f"{self.path}: no group for {len(lost):,} of {len(identifiers):,} evaluated proteins"
                f" ({listed(lost, _SHOWN)}); it has ids such as {listed(list(self.of)[:_SHOWN])}"
            )
        found = [self.of[name] for name in identifiers]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(found))}
        if len(numbers) < 2:
            raise DataError(f"{self.path}: all evaluated proteins are in the group {quoted(found[0])}; two are needed")
        return np.array([numbers[name] for name in found])


def read_groups(path: Path) -> Groups:
    """Read a table with the columns ``id`` and ``group``, in any format of :mod:`tape.io.records` with columns.

    Raises:
        DataError: the file can't be read, a row has no id or no group, or an id occurs twice. Names file and row.
    """
    groups: dict[str, str] = {}
    for row in open_rows(path):
        name = identifier_of(row, RecordOptions())
        if name is None:
            raise DataError(f"{row.where}: no id; the table needs the columns {ID_COLUMNS[0]} and {GROUP_COLUMN}")
        if name in groups:
            raise DataError(f"{row.where}: the id {quoted(name)} is in the table twice")
        groups[name] = _group_of(row)
    if not groups:
        raise DataError(f"{path}: contains no row")
    return Groups(path, groups)


def _group_of(row: Row) -> str:
    if GROUP_COLUMN not in row.fields:
        raise DataError(f"{row.where}: no column {GROUP_COLUMN}; it has {listed(row.fields)}")
    value = row.fields[GROUP_COLUMN]
    if value is None or value == "":
        raise DataError(f"{row.where}: no {GROUP_COLUMN}; give each protein one, also if it is alone in it")
    return str(value)
