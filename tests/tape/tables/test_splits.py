"""Splits of a user's table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tape.errors import CheckpointError, DataError
from tape.io.records import Record
from tape.tables.splits import describe_splits, read_splits, splits_of_column, write_splits


def records(*splits: str) -> list[Record]:
    return [Record(f"p{i}", "MK", f"t.csv, record {i}", i, {"fold": split}) for i, split in enumerate(splits)]


def digests(count: int) -> list[str]:
    return [f"d{i}" for i in range(count)]


def test_a_column_has_the_usual_names_of_splits() -> None:
    splits = splits_of_column(records("Train", "validation", "holdout"), digests(3), "fold", 0)
    assert splits == ["train", "valid", "holdout"]


def test_valid_is_drawn_from_train_if_a_column_has_none() -> None:
    splits = splits_of_column(records(*["train"] * 20, "test"), digests(21), "fold", 0)
    assert Counter(splits) == {"train": 18, "valid": 2, "test": 1}


@pytest.mark.parametrize(
    ("column", "names", "message"),
    [
        (("train", "valid", ""), ("a", "b", "c"), "record 2: no split in column 'fold'"),
        (("a", "b"), ("a", "b"), "has no split train, but a, b"),
        (("train", "valid", "test"), ("a", "b", "a"), "record 2: in split test, with the same sequence as p0 in train"),
    ],
)
def test_a_column_that_can_not_be_used_is_refused(
    column: tuple[str, ...], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        splits_of_column(records(*column), names, "fold", 0)


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
