"""Intervals of predicted values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tape.metrics import Bootstrap
from tape.metrics.prediction_intervals import coverage, half_widths


@pytest.mark.parametrize("count", [9, 10, 19, 20, 100])
def test_nine_of_ten_new_values_are_in_the_interval(count: int) -> None:
    """The probability is at least 0.9, and at most 0.9 + 1 / (n + 1); here of lognormal errors, in 4,000 trials."""
    rng = np.random.default_rng(count)
    inside = []
    for _ in range(4000):
        errors = rng.lognormal(sigma=2, size=count + 1)
        (width,) = half_widths([(error, 0.0) for error in errors[:-1]])
        assert width is not None
        inside.append(errors[-1] <= width)
    tolerance = 4 * math.sqrt(0.09 / 4000)
    assert 0.9 - tolerance <= np.mean(inside) <= 0.9 + 1 / (count + 1) + tolerance


def test_fewer_than_nine_proteins_have_no_interval() -> None:
    assert half_widths([(1.0, 2.0)] * 8) == (None,)
    assert half_widths([(1.0, 2.0)] * 9) == (1.0,)


def test_each_column_has_the_errors_of_its_own_values() -> None:
    rows = [(np.array([1.0, 5.0]), np.array([1.5, math.nan if i else 1.0])) for i in range(12)]
    assert half_widths(rows, 2) == (0.5, None)


def test_a_prediction_that_is_no_number_leaves_no_interval() -> None:
    assert half_widths([(math.nan, 1.0)] * 9) == (None,)


def test_coverage_is_the_share_of_values_in_their_interval() -> None:
    (metric,) = coverage([(1.0, 2.0), (1.0, 0.4), (5.0, 3.0), (1.0, 1.0)], [1.0], ["Tm"])
    assert (metric.name, metric.value, metric.n) == ("coverage_90", 0.75, 4)
    rows = [(np.array([1.0, 1.0]), np.array([9.0, math.nan])), (np.array([1.0, 1.0]), np.array([9.0, 1.0]))]
    first, second = coverage(rows, [8.0, 0.0], ["Tm", "kcat"])
    assert (first.name, first.value, first.n) == ("coverage_90_Tm", 1.0, 2)
    assert (second.name, second.value, second.n) == ("coverage_90_kcat", 1.0, 1)
    assert coverage(rows, [None, 0.0], ["Tm", "kcat"]) == [second]
    (metric,) = coverage([(float(i % 4 == 0), 0.0) for i in range(400)], [0.5], ["Tm"], Bootstrap(200, 0))
    assert metric.interval is not None
    assert metric.interval == pytest.approx((0.7075, 0.7925), abs=0.02)  # 0.75 +- 1.96 (0.75 x 0.25 / 400)^0.5
    assert np.isnan(coverage([(1.0, math.nan)], [1.0], ["Tm"])[0].value)
    assert coverage([(math.nan, 1.0)], [1.0], ["Tm"])[0].value == 0
