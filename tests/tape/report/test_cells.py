"""Numbers and rows of tables."""

from __future__ import annotations

import math

import pytest

from tape.report.cells import markdown_row, shown_interval, shown_number


@pytest.mark.parametrize(
    ("value", "sign", "metric", "text"),
    [
        (0.0004, "-", "spearmanr_kcat", "0.000"),
        (0.000412345, "-", "mae_kcat", "0.000412"),
        (-4.12345e-7, "+", "rmse_kcat", "-4.12e-07"),
        (644813697843.2, "-", "mae", "6.45e+11"),
        (0.9034, "+", "mae_Tm", "+0.903"),
        (12.34567, "-", "mse", "12.346"),
        (0.0, "+", "mae", "+0.000"),
        (math.nan, "-", "mae", "-"),
        (math.inf, "-", "rmse", "inf"),
    ],
)
def test_errors_in_any_unit_have_digits(value: float, sign: str, metric: str, text: str) -> None:
    assert shown_number(value, sign, metric) == text


def test_an_interval_has_the_digits_of_its_ends() -> None:
    assert shown_interval((-0.00012, 0.5), "+", "mae_kcat") == "[-0.00012, +0.500]"
    assert shown_interval((-0.00012, 0.5)) == "[-0.000, 0.500]"


def test_bars_in_names_do_not_divide_a_cell() -> None:
    assert markdown_row(("a|b", "1")) == "| a\\|b | 1 |"
