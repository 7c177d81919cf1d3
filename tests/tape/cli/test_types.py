"""Types of command-line values: what they accept, and what they report."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from tape.cli.types import (
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    unit_interval,
)


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (positive_int, "1", 1),
        (positive_int, "1_000", 1000),
        (non_negative_int, "0", 0),
        (positive_float, "1e-8", 1e-8),
        (non_negative_float, "0", 0.0),
        (fraction, "0", 0.0),
        (fraction, "0.999", 0.999),
        (unit_interval, "0", 0.0),
        (unit_interval, "1", 1.0),
    ],
)
def test_a_value_in_range_is_converted(convert: Callable[[str], float], text: str, value: float) -> None:
    assert convert(text) == value
    assert type(convert(text)) is type(value)


@pytest.mark.parametrize(
    ("convert", "texts", "message"),
    [
        (positive_int, ["0", "-1", "1.5", "two", ""], "must be a whole number of at least 1, not "),
        (non_negative_int, ["-1", "1.5", "two", ""], "must be a whole number of at least 0, not "),
        (positive_float, ["0", "-1", "inf", "nan", "two"], "must be a number above 0, not "),
        (non_negative_float, ["-0.1", "inf", "nan", "two"], "must be a number of at least 0, not "),
        (unit_interval, ["-0.1", "1.1", "nan", "two"], "must be from 0 to 1, not "),
        (fraction, ["-0.1", "1", "inf", "nan", "two"], r"must be in [0, 1), not "),
    ],
)
def test_any_other_text_is_refused_with_the_range_and_the_text(
    convert: Callable[[str], float], texts: list[str], message: str
) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as error:
            convert(text)
        assert str(error.value) == message + repr(text)
