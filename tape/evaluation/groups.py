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
DIGEST_COLUMN = "sequence_sha256"
_SHOWN = 3  # ids in a message


@dataclass(frozen=True)
class Groups:
    """The groups of a table's proteins.

    Attributes:
        path: the table.
        of: id of a protein -> its group.
        digests: id -> digest of its sequence, see :func:`tape.leakage.proteins.sequence_digest`; empty if the table has
            no column of them.
    """

    path: Path
    of: dict[str, str]
    digests: dict[str, str]

    def numbers(self, identifiers: Sequence[str], title: str) -> np.ndarray:
        """(N,) numbers of the groups of N proteins, from 0.

        Args:
            identifiers: ids of the proteins.
            title: what they are, for messages.

        Raises:
            DataError: a protein is not in the table, all are in one group, or ids are numbers of records, of which the
                table has others as well, so that it is that of other proteins. Names the file.
        """
        lost = [name for name in identifiers if name not in self.of]
        if lost:
            raise DataError(
                f"{self.path}: no group for {len(lost):,} of {len(identifiers):,} proteins of {title}"
                f" ({listed(lost, _SHOWN)}); it has ids such as {listed(list(self.of)[:_SHOWN])}"
            )
        if len(self.of) > len(identifiers) and list(identifiers) == [str(place) for place in range(len(identifiers))]:
            raise DataError(
                f"{self.path}: has {len(self.of):,} proteins, and {title} {len(identifiers):,}, whose ids are only the"
                " numbers of records: the table is that of another split or data set"
            )
        found = [self.of[name] for name in identifiers]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(found))}
        if len(numbers) < 2:
            raise DataError(f"{self.path}: all proteins of {title} are in the group {quoted(found[0])}; two are needed")
        return np.array([numbers[name] for name in found])


def read_groups(path: Path) -> Groups:
    """Read a table with the columns ``id`` and ``group``, in any format of :mod:`tape.io.records` with columns.

    Raises:
        DataError: the file can't be read, a row has no id or no group, or an id has two groups. Names file and row.
    """
    groups: dict[str, str] = {}
    digests: dict[str, str] = {}
    for row in open_rows(path):
        name = identifier_of(row, RecordOptions())
        if name is None:
            raise DataError(f"{row.where}: no id; the table needs the columns {ID_COLUMNS[0]} and {GROUP_COLUMN}")
        group = _group_of(row)
        if groups.setdefault(name, group) != group:
            raise DataError(f"{row.where}: the id {quoted(name)} is in the table twice, with different groups")
        if DIGEST_COLUMN in row.fields:
            digests[name] = str(row.fields[DIGEST_COLUMN])
    if not groups:
        raise DataError(f"{path}: contains no row")
    return Groups(path, groups, digests)


def is_groups_table(path: Path) -> bool:
    """Whether a file starts as one that ``tape-groups`` writes."""
    try:
        with path.open(encoding="utf-8") as stream:
            return stream.readline(100).split() == [ID_COLUMNS[0], GROUP_COLUMN, DIGEST_COLUMN]
    except (OSError, UnicodeDecodeError):
        return False


def _group_of(row: Row) -> str:
    if GROUP_COLUMN not in row.fields:
        raise DataError(f"{row.where}: no column {GROUP_COLUMN}; it has {listed(row.fields)}")
    value = row.fields[GROUP_COLUMN]
    if not isinstance(value, str | int | None) or isinstance(value, bool):
        raise DataError(f"{row.where}: {GROUP_COLUMN} is {quoted(value)}; it must be text or a whole number")
    name = "" if value is None else str(value).strip()
    if not name:
        raise DataError(f"{row.where}: no {GROUP_COLUMN}; give each protein one, also if it is alone in it")
    return name
