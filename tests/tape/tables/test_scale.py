"""The mean and deviation of the values of training proteins."""

from __future__ import annotations

import statistics

import numpy as np
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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1e12, 1e12 + 3, 1e12 + 6], r"which numbers in fp32 can't tell apart; subtract 1e\+12 from all values"),
        ([1e6, 1e6 + 0.01, 1e6 + 0.02], r"is 1000000\.01 with deviation 0\.00816 .* subtract 1e\+06"),
        ([1.5e37, 9e37], "beyond what fp32 can compute with .* give them in another unit"),
        ([1.5e-50, 9e-50], "beyond what fp32 can compute with"),
    ],
)
def test_values_that_fp32_cannot_hold_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mean_and_deviation(values, "Tm")


@pytest.mark.parametrize("values", [[1e12, 2e12, 4e12], [1e-12, 2e-12], [273.1, 273.2], [1e6, 1e6 + 100]])
def test_values_of_any_common_unit_have_a_scale(values: list[float]) -> None:
    mean, std = mean_and_deviation(values, "Tm")
    restored = (np.float32(values) - np.float32(mean)) / np.float32(std)
    assert np.allclose(restored, (np.array(values) - mean) / std, atol=0.02)
