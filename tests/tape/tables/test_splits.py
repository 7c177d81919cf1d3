"""Splits of a user's table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tape.errors import CheckpointError, ConfigError, DataError
from tape.io.records import Record
from tape.tables.options import TableOptions
from tape.tables.splits import describe_splits, divide_records, own_split, read_splits, splits_of_column, write_splits


def records(*splits: str) -> list[Record]:
    return [Record(f"p{i}", "MK", f"t.csv, record {i}", i, {"fold": split}) for i, split in enumerate(splits)]


def digests(count: int) -> list[str]:
    return [f"d{i}" for i in range(count)]


def test_a_column_has_the_usual_names_of_splits() -> None:
    splits = splits_of_column(records("Train", "validation", "holdout"), digests(3), "fold", 0, "column fold")
    assert splits == ["train", "valid", "holdout"]


def with_columns(**columns: list[str | None]) -> list[Record]:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return [Record(f"p{i}", f"MK{'A' * i}", f"t.csv, record {i}", i, row) for i, row in enumerate(rows)]


TABLE = TableOptions(Path("t.csv"), target="y")


@pytest.mark.parametrize("name", ["split", "Split", "SPLIT"])
def test_a_column_split_is_used_in_any_letter_case(name: str) -> None:
    found = divide_records(with_columns(**{name: ["train", "Valid", "test"]}), digests(3), None, TABLE)
    assert (found.splits, found.column, found.unused) == (["train", "valid", "test"], name, ())


def test_two_spellings_of_the_column_split_are_refused() -> None:
    table = with_columns(Split=["train", "test"], SPLIT=["test", "train"])
    with pytest.raises(ConfigError, match=r"t\.csv: SPLIT and Split may be the splits; .* --split-column"):
        divide_records(table, digests(2), None, TABLE)


def test_a_record_without_its_split_is_refused() -> None:
    table = with_columns(split=["train"] * 9 + ["test"])
    del table[4].fields["split"]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="record 4: no split in column 'split'; the record has .* --split 80,10,10"):
        divide_records(table, digests(10), None, TABLE)


def test_numbers_of_folds_in_a_column_split_in_other_letter_case_are_no_splits() -> None:
    found = divide_records(with_columns(Split=[str(i % 5) for i in range(20)]), digests(20), None, TABLE)
    assert found.column is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"split": "Testing"}, "test"),
        ({"split": "mine"}, "mine"),
        ({"Split": "VAL"}, "valid"),
        ({"Split": "3"}, None),
        ({"split": None}, None),
        ({"part": "test"}, None),
    ],
)
def test_the_split_of_a_record_in_an_evaluation(fields: dict[str, object], expected: str | None) -> None:
    assert own_split(Record("p", "MK", "t.csv, record 1", 0, fields)) == expected


def test_splits_that_are_not_used_are_announced() -> None:
    part = ["Training", "testing"] * 10
    table = with_columns(set=part, weekday=["train", "bus"] * 10, kind=["test"] * 20, part=part)
    found = divide_records(table, digests(20), None, TABLE)
    assert found.column is None
    assert "not used, but with names of splits: set, part; --split-column set uses it" in found.notices
    chosen = divide_records(table, digests(20), None, TableOptions(Path("t.csv"), target="y", fractions=(50, 25, 25)))
    assert not chosen.unused


def test_valid_is_drawn_from_train_if_a_column_has_none() -> None:
    splits = splits_of_column(records(*["train"] * 20, "test"), digests(21), "fold", 0, "column fold")
    assert Counter(splits) == {"train": 18, "valid": 2, "test": 1}


@pytest.mark.parametrize(
    ("column", "names", "message"),
    [
        (("train", "valid", ""), ("a", "b", "c"), "record 2: no split in column 'fold'"),
        (("a", "b"), ("a", "b"), "column fold: no split train, but a, b; one must be called train"),
        (("train", "valid", "test"), ("a", "b", "a"), "record 2: in split test, with the same sequence as p0 in train"),
    ],
)
def test_a_column_that_can_not_be_used_is_refused(
    column: tuple[str, ...], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        splits_of_column(records(*column), names, "fold", 0, "column fold")


def test_splits_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "splits.tsv"
    assert read_splits(path) == {}
    write_splits(path, ["p 1", "p2"], ["a", "b"], ["train", "test"])
    assert read_splits(path) == {"a": "train", "b": "test"}
    path.write_text("id\tsplit\np1\ttrain\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="record 1: not the splits of a run"):
        read_splits(path)


def test_splits_are_described_in_their_usual_order() -> None:
    assert describe_splits(["new", "test", "valid", "train", "train"]) == "train 2, valid 1, test 1, new 1"
    assert describe_splits(["test", "train"]) == "train 1, test 1"
