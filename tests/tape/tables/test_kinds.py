"""The kind of a column of a user's table, and the labels in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tape.errors import ConfigError, DataError
from tape.io.records import Record
from tape.tables.kinds import infer_kind, label_of, make_target

SEQUENCES = ("MKTW", "ACDEFG", "GGA", "LLKKV")


def records(*values: Any, sequences: tuple[str, ...] = SEQUENCES) -> list[Record]:
    return [
        Record(f"p{i}", sequences[i % len(sequences)], f"t.csv, record {i}", i, {"y": value})
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        (("57.5", "60", "48.25", ""), "regression", "decimal numbers, such as 57.5"),
        (("57.5", "NA", "48.25", "nan"), "regression", "decimal numbers"),
        (tuple(map(str, range(21))), "regression", "21 different integers"),
        (("0", "1", "1", "0"), "classification", "2 different integers"),
        ((True, False, True, True), "classification", "true and false"),
        (("low", "high", "low", "low"), "classification", "2 different texts"),
        (("NA", "K", "NA", "K"), "classification", "2 different texts"),
        (("HHEE", "CCCCHH", "EEE", "HHHHC"), "residue", "length of its sequence"),
    ],
)
def test_the_kind_follows_from_the_values(values: tuple[Any, ...], kind: str, reason: str) -> None:
    inferred = infer_kind(records(*values), "y")
    assert inferred.kind == kind
    assert reason in inferred.reason


def test_decimal_numbers_as_long_as_their_peptides_are_values() -> None:
    peptides = ("ACDEF", "GHIKL")
    assert infer_kind(records("1.234", "57.50", sequences=peptides), "y").kind == "regression"
    assert infer_kind(records("01011", "11100", sequences=peptides), "y").kind == "residue"


def test_a_column_of_names_is_no_target() -> None:
    with pytest.raises(DataError, match="column 'y' has 12 different texts in 12 records.*--target"):
        infer_kind(records(*(f"name{i}" for i in range(12))), "y")


def test_a_column_that_is_missing_or_empty_is_refused() -> None:
    with pytest.raises(DataError, match=r"t\.csv, record 0: no column 'z' to predict; it has y"):
        infer_kind(records("1"), "z")
    with pytest.raises(DataError, match="column 'y' has no value in any of 2 records"):
        infer_kind(records("", None), "y")


def test_classes_are_sorted_as_numbers_or_texts() -> None:
    assert make_target(records("10", "9", "10", "2"), "y", "classification", "t").classes == ("2", "9", "10")
    assert make_target(records("b", "a", "NA", ""), "y", "classification", "t").classes == ("NA", "a", "b")
    with pytest.raises(ConfigError, match=r"1 classes \(a\)"):
        make_target(records("a", "a"), "y", "classification", "t")


def test_labels_of_values_and_classes() -> None:
    value = make_target(records("1.5"), "y", "regression", "t")
    assert [label_of(record, value) for record in records("1.5", "n/a", None, 2)] == [1.5, None, None, 2.0]
    with pytest.raises(DataError, match=r"record 0: field 'y' does not contain a number, but 'warm'"):
        label_of(records("warm")[0], value)
    places = make_target(records("a", "b"), "y", "classification", "t")
    assert [label_of(record, places) for record in records("b", "", "a")] == [1, None, 0]
    with pytest.raises(DataError, match=r"record 0: column 'y' has 'c', which is none of the model's classes: a, b"):
        label_of(records("c")[0], places)


def test_labels_of_residues_have_any_alphabet() -> None:
    rows = records("xY-Y", ["helix", None, "x", "x", "x", "helix"])
    target = make_target(rows, "y", "residue", "t")
    assert target.classes == ("Y", "helix", "x")
    np.testing.assert_array_equal(label_of(rows[0], target), [2, 0, -1, 0])
    np.testing.assert_array_equal(label_of(rows[1], target), [1, -1, 2, 2, 2, 1])
    with pytest.raises(DataError, match="3 entries for 4 residues"):
        label_of(records("xxx")[0], target)


def test_labels_are_lists_or_announced_text() -> None:
    rows = records(["b", "a"], '["c"]', "[]", None)
    assert infer_kind(rows, "y").kind == "multilabel"
    target = make_target(rows, "y", "multilabel", "t")
    assert target.classes == ("a", "b", "c")
    labels = [label_of(row, target) for row in rows]
    assert [None if label is None else label.tolist() for label in labels] == [[1, 1, 0], [0, 0, 1], [0, 0, 0], None]
    np.testing.assert_array_equal(label_of(records("c; a")[0], target), [1, 0, 1])
    assert infer_kind(records("a;b", "b", "a;b", "b"), "y").kind == "classification"
    with pytest.raises(DataError, match="an empty label in 'a;;b'"):
        label_of(records("a;;b")[0], target)
    with pytest.raises(DataError, match="'d', which is none of the model's classes: a, b, c"):
        label_of(records(["d"])[0], target)
