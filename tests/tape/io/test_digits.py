"""Only ASCII digits are numbers."""

from __future__ import annotations

import pytest

from tape.io.digits import natural_number


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_digits_are_a_number(text: str, number: int) -> None:
    assert natural_number(text) == number


@pytest.mark.parametrize("text", ["", " 1", "+1", "-1", "1_0", "1.0", "6\u00b2", "\u0663", "9" * 19, "1" * 5000])
def test_other_text_is_none(text: str) -> None:
    assert natural_number(text) is None
