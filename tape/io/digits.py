"""Numbers in file names, pointers and headers."""

from __future__ import annotations

_MOST_DIGITS = 18  # below 2^63


def natural_number(text: str) -> int | None:
    """The number that up to 18 ASCII digits denote; None for any other text.

    ``str.isdigit`` accepts what ``int`` can't convert (superscripts, thousands of digits), and ``int`` more than digits
    (signs, spaces, underscores).
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None
