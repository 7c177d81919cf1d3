"""The table of groups of tape-compare: every evaluated protein has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError
from tape.report.groups import read_groups


def write(tmp_path: Path, text: str, name: str = "groups.tsv") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def test_groups_are_numbered_in_the_order_of_the_proteins(tmp_path: Path) -> None:
    table = "id,group,note\np1,b,x\np2,a,\np3,b,x\n"
    groups = read_groups(write(tmp_path, table, "groups.csv"))
    assert groups.numbers(["p2", "p3", "p1"]).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\tgroup\n", r"groups\.tsv: contains no row"),
        ("id\tfamily\np1\ta\n", r"groups\.tsv, .*: no column group; it has id, family"),
        ("id\tgroup\np1\t\n", r"groups\.tsv, .*: no group; give each protein one"),
        ("group\na\n", r"groups\.tsv, .*: no id; the table needs the columns id and group"),
        ("id\tgroup\np1\ta\np1\tb\n", r"groups\.tsv, .*: the id 'p1' is in the table twice"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_groups(write(tmp_path, text))


def test_proteins_without_a_group_and_a_single_group_are_refused(tmp_path: Path) -> None:
    groups = read_groups(write(tmp_path, "id\tgroup\np1\ta\np2\ta\np3\tb\n"))
    with pytest.raises(
        DataError, match=r"no group for 2 of 3 evaluated proteins \(x, y\); it has ids such as p1, p2, p3"
    ):
        groups.numbers(["p1", "x", "y"])
    with pytest.raises(DataError, match=r"all evaluated proteins are in the group 'a'; two are needed"):
        groups.numbers(["p1", "p2"])
