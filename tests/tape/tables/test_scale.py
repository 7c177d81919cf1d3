"""The mean and deviation of the values of training proteins."""

from __future__ import annotations

import statistics

import pytest

from tape.errors import DataError
from tape.tables.scale import mean_and_deviation


def test_the_deviation_is_that_of_the_population() -> None:
    values = [3.5, 1.25, -2.0, 8.0]
    expected = statistics.fmean(values), statistics.pstdev(values)
    assert mean_and_deviation(values, "Tm") == pytest.approx(expected)


def test_values_without_a_scale_are_refused() -> None:
    with pytest.raises(DataError, match="Tm is 0 for all training proteins: nothing to learn"):
        mean_and_deviation([0.0, 0.0], "Tm")
    with pytest.raises(DataError, match="Tm is inf for a training protein"):
        mean_and_deviation([1.0, float("inf")], "Tm")
