"""Values of label columns, in every form in which files have them, and the errors for all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tape.errors import DataError
from tape.io.records.labels import (
    SS3_CLASSES,
    SS8_CLASSES,
    class_of,
    number_of,
    residue_classes,
    residue_mask,
    residue_points,
    resolved_points,
    three_states,
)


def states(value: Any, length: int = 4, valid: np.ndarray | None = None) -> list[int]:
    return residue_classes(value, SS3_CLASSES, 3, length, "ss3", "x.csv, record 2", valid).tolist()


@pytest.mark.parametrize("value", [[True, False, 0, 1], [2, None, True, 0], "[2, 0, true, 1]", np.ones(4, dtype=bool)])
def test_booleans_are_no_classes(value: Any) -> None:
    with pytest.raises(DataError, match=r"x\.csv, record 2: field 'ss3' has (True|False) at position \d"):
        states(value)


@pytest.mark.parametrize("value", [[[0, 0, True]], np.ones((1, 3), dtype=bool)])
def test_booleans_are_no_coordinates(value: Any) -> None:
    with pytest.raises(DataError, match="field 'tertiary' has True at position"):
        residue_points(value, 1, "tertiary", "x.csv, record 2")


@pytest.mark.parametrize(
    "value",
    [
        "CHHE",
        "2001",
        "[2, 0, 0, 1]",
        "2,0,0,1",
        "2 0 0 1",
        [2, 0, 0, 1],
        ["C", "H", "H", "E"],
        np.array([2.0, 0, 0, 1]),
    ],
)
def test_classes_of_residues_are_read_in_every_form(value: Any) -> None:
    assert states(value) == [2, 0, 0, 1]


@pytest.mark.parametrize(
    "value", ["HX-E", "H- E", "0 -1 -1 1", "0,-1,-1,1", ["H", None, "", "E"], [0, -1, -1, 1], ["H", "X", -1, "E"]]
)
def test_residues_without_label_are_unlabeled(value: Any) -> None:
    assert states(value) == [0, -1, -1, 1]


@pytest.mark.parametrize("value", ["HHE\n", "HHE\t", "0 -1 1", "0,-1,1"])
def test_line_breaks_and_signs_are_no_entries(value: str) -> None:
    with pytest.raises(DataError, match="has 3 entries for 4 residues"):
        states(value)


@pytest.mark.parametrize("value", ["1_5", "\u0661", np.complex64(1)])
def test_only_plain_decimal_numbers_are_numbers(value: Any) -> None:
    with pytest.raises(DataError, match="does not contain a number"):
        number_of(value, "y", "x.csv, record 2")


def test_letters_of_dssp_map_to_eight_and_three_states() -> None:
    eight = residue_classes("GHIBESTCLP", SS8_CLASSES, 8, 10, "ss8", "x")
    assert eight.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7]
    assert three_states(eight).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
    assert residue_classes("GHIBESTCLP", SS3_CLASSES, 3, 10, "ss3", "x").tolist() == three_states(eight).tolist()
    assert three_states(np.array([-1, 7])).tolist() == [-1, 2]


def test_numbers_of_residues_that_are_not_valid_need_not_be_classes() -> None:
    valid = np.array([True, False, True, True])
    assert states([0, 9, 1, 2], valid=valid) == [0, -1, 1, 2]
    assert states([0, 2, 1, 2], valid=valid) == [0, 2, 1, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, 1], "has 2 entries for 4 residues"),
        (5, "has a single value for 4 residues"),
        (None, "has a single value for 4 residues"),
        ([0, 1, 2, 3], "has class 3; allowed are 0 to 2, and -1"),
        ([0, 1, 2, -2], "has class -2"),
        ([0, 1, 2, 1e300], r"has class 1e\+300"),
        ([0, 1, 2, 10**30], "has 1000000000000000000000000000000 at residue 4; allowed are"),
        ([0, 1, 2, float("nan")], "does not contain integers"),
        ([0, 1, 2, 0.5], "does not contain integers"),
        ("HHHQ", "has 'Q' at residue 4; allowed are G H I"),
        ([[0], [1], [2], [0]], "does not contain one number or letter per residue"),
        ([[0], [1, 2], 3, 4], "does not contain one number or letter per residue"),
        ({"a": 1}, "has a single value for 4 residues"),
    ],
)
def test_bad_classes_of_residues_are_named(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"x\.csv, record 2: field 'ss3' {message}"):
        states(value)


def test_lists_in_lists_are_not_expanded() -> None:
    bomb: Any = [0]
    for _ in range(60):
        bomb = [bomb, bomb]
    for read in (lambda: states(bomb, 2), lambda: residue_points(bomb, 2, "t", "x"), lambda: number_of(bomb, "v", "x")):
        with pytest.raises(DataError):
            read()


@pytest.mark.parametrize("value", [1.5, "1.5", [1.5], [[1.5]], np.array([1.5]), np.float32(1.5), "[1.5]", b"1.5"])
def test_one_number_is_read_in_every_form(value: Any) -> None:
    assert number_of(value, "score", "x") == 1.5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "has 2 values, where one is meant"),
        (np.zeros(3), "has 3 values, where one is meant"),
        ([], "has no value"),
        ("", "has no value"),
        (None, "has no value"),
        (float("nan"), "not a finite number"),
        ("inf", "not a finite number"),
        (1e39, "not a finite number"),
        (10**400, "not a finite number"),
        ("9" * 5000, "not a finite number"),
        ("high", "does not contain a number, but 'high'"),
        (True, "does not contain a number, but True"),
        ({"a": 1}, "does not contain a number"),
    ],
)
def test_bad_numbers_are_named(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"x, record 1: field 'score' .*{message}"):
        number_of(value, "score", "x, record 1")


def test_classes_of_proteins() -> None:
    assert [class_of(value, 5, "fold", "x") for value in (4, "3", 2.0, [1])] == [4, 3, 2, 1]
    for value, message in ((5, "has class 5; allowed are 0 to 4"), (-1, "has class -1"), (1.5, "is not an integer")):
        with pytest.raises(DataError, match=message):
            class_of(value, 5, "fold", "x")


@pytest.mark.parametrize("value", ["011", "[0, 1, 1]", [False, True, True], [0.0, 1.0, 1.0], np.array([0, 1, 1], bool)])
def test_masks_are_read_in_every_form(value: Any) -> None:
    assert residue_mask(value, 3, "valid_mask", "x").tolist() == [False, True, True]


@pytest.mark.parametrize("value", ["012", [0, 1, 0.5], [0, 1, None], [0, 1, float("nan")]])
def test_masks_of_other_values_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match="field 'valid_mask' has entries other than 0 and 1"):
        residue_mask(value, 3, "valid_mask", "x")


def test_points_that_are_null_are_unresolved() -> None:
    points, valid = resolved_points([[1, 2, 3], None, [1, None, 2], [float("nan")] * 3], None, 4, "x")
    assert points[0].tolist() == [1, 2, 3]
    assert valid.tolist() == [True, False, False, False]
    assert resolved_points("[[1, 2, 3], null]", "11", 2, "x")[1].tolist() == [True, False]


def test_points_at_the_origin_need_a_mask() -> None:
    points = [[0, 0, 0], [1, 2, 3], [0, 0, 0]]
    with pytest.raises(DataError, match=r"2 residues at \(0, 0, 0\).*valid_mask"):
        resolved_points(points, None, 3, "x")
    assert resolved_points(points, "010", 3, "x")[1].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1, 2, 3]], "has 1 entries for 2 residues"),
        ([[1, 2], [1, 2]], r"has shape \(2, 2\), not \(2, 3\)"),
        ([["a", "b", "c"]] * 2, r"does not contain 2 points"),
        (5, "does not contain 2 points"),
        ([[1, 2, float("inf")], [1, 2, 3]], "has an infinite or too large coordinate"),
        ([[1, 2, 1e39], [1, 2, 3]], "has an infinite or too large coordinate"),
    ],
)
def test_bad_points_are_named(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"x, record 1: field 'tertiary' {message}"):
        residue_points(value, 2, "tertiary", "x, record 1")
