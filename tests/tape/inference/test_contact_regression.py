"""The file of a regression of contacts: kept with its model, and refused for another one or if damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tape.errors import CheckpointError
from tape.inference.contact_regression import ContactRegression, keep_with_model, read_regression, write_regression
from tape.io.checksums import read_sums, sha256_of, write_sums

REGRESSION = ContactRegression(np.array([0.5, 0.0, -2.25]), -1.5, ("1abc-A", "2xyz-B"), 120, 0.15)


def test_a_regression_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_regression(path, REGRESSION, "abc")
    found = read_regression(path, "abc")
    np.testing.assert_array_equal(found.weights, REGRESSION.weights)
    assert (found.intercept, found.proteins, found.pairs, found.c) == (-1.5, ("1abc-A", "2xyz-B"), 120, 0.15)


def test_a_regression_of_another_model_is_refused(tmp_path: Path) -> None:
    write_regression(tmp_path / "r.json", REGRESSION, "abc")
    with pytest.raises(CheckpointError, match=r"r\.json: was fitted to a model with other weights .*'abc', not def"):
        read_regression(tmp_path / "r.json", "def")


def test_the_sum_of_a_kept_regression_is_verified(tmp_path: Path) -> None:
    write_sums(tmp_path, {"model.safetensors": "0" * 64})
    path = keep_with_model(tmp_path, REGRESSION, "abc")
    assert path == tmp_path / "contact_regression.json"
    assert read_sums(tmp_path) == {"model.safetensors": "0" * 64, path.name: sha256_of(path)}
    path.write_text(path.read_text().replace("-2.25", "-2.26"))
    with pytest.raises(CheckpointError, match=r"contact_regression\.json: damaged, or changed"):
        read_regression(path, "abc")
    assert read_regression(path, "abc", verify=False).weights[2] == -2.26


def test_a_directory_without_sums_gets_none(tmp_path: Path) -> None:
    keep_with_model(tmp_path, REGRESSION, None)
    assert [path.name for path in tmp_path.iterdir()] == ["contact_regression.json"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", "other", "not a regression of contacts"),
        ("version", 2, "not a regression of contacts of version 1; fit it again"),
        ("weights", [], "weights must be finite numbers"),
        ("weights", [1.0, float("nan")], "weights must be finite numbers"),
        ("weights", "1", "weights must be finite numbers"),
        ("intercept", None, "intercept must be finite numbers"),
        ("pairs", True, "pairs must be finite numbers"),
    ],
)
def test_damaged_files_are_refused_by_field(tmp_path: Path, field: str, value: object, message: str) -> None:
    path = tmp_path / "r.json"
    write_regression(path, REGRESSION, None)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(CheckpointError, match=rf"r\.json: .*{message}"):
        read_regression(path, None)


def test_a_directory_that_can_not_be_written_is_left_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "contact_regression.json").mkdir()  # which a file can't replace, not even for root
    assert keep_with_model(tmp_path, REGRESSION, "abc") is None
    assert "contact_regression.json" in caplog.text
