"""Types of command-line values, for ``add_argument(..., type=...)`` in both halves of the project.

Each raises :class:`argparse.ArgumentTypeError`, whose message argparse completes with the option's name.
"""

from __future__ import annotations

import argparse
import math

from tape.errors import quoted


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _whole_number(text, 1)


def non_negative_int(text: str) -> int:
    """A whole number of at least 0."""
    return _whole_number(text, 0)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {quoted(text)}")
    return value


def non_negative_float(text: str) -> float:
    """A finite number of at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {quoted(text)}")
    return value


def fraction(text: str) -> float:
    """A number of at least 0 and below 1, such as a dropout probability."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1), not {quoted(text)}")
    return value


def unit_interval(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {quoted(text)}")
    return value


def _whole_number(text: str, minimum: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {minimum}, not {quoted(text)}")
    return value


def _number(text: str) -> float:
    """The number that a text states; nan, which is in no range, for any other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan
