"""Numbers and rows of tables."""

from __future__ import annotations

import math
from collections.abc import Iterable

_ERRORS = frozenset({"mae", "mse", "rmse"})  # in the unit of the target, which may be of any size


def shown_number(value: float, sign: str = "-", metric: str = "") -> str:
    """Three decimals; of very small and large errors three digits, such as 0.00123 and 6.45e+11.

    Args:
        value: the number.
        sign: "+": always signed.
        metric: name of the metric, such as ``mae_Tm``.

    Returns:
        A dash where the number is undefined.
    """
    if math.isnan(value):
        return "-"
    is_error = metric.partition("_")[0] in _ERRORS
    form = "g" if is_error and value != 0 and not 0.01 <= abs(value) < 1e6 else "f"
    return f"{value:{sign}.3{form}}"


def shown_interval(interval: tuple[float, float], sign: str = "-", metric: str = "") -> str:
    """The ends of an interval as :func:`shown_number` writes them, in brackets."""
    low, high = (shown_number(end, sign, metric) for end in interval)
    return f"[{low}, {high}]"


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table; bars in names of targets and files are escaped."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
