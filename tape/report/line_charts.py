"""Line charts as SVG, without a library: axes with round ticks, lines, and the smoothing of noisy curves.

Colors and dashes are classes (``c0``, ``d1`` ...) of the style sheet around a chart.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 60, 10, 12, 40
COLORS = 8  # c0 to c7 in report.css
DASHES = 4  # a solid line, and d1 to d3
LOGARITHMIC = 30.0  # ratio of the largest to the smallest value from which an axis may be logarithmic
LARGEST_SHOWN = 1e15  # values beyond it, which only damaged files have, are not drawn


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (x, y), name in the legend, style number, and whether it is thin and pale."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    faint: bool = False
    dots: bool = False


def style_class(style: int) -> str:
    """The style sheet's classes of a style number: every color first as a solid line, then dashed in several ways."""
    dash = style // COLORS % DASHES
    return f"c{style % COLORS}" + (f" d{dash}" if dash else "")


def key(style: int) -> str:
    """A short line in a style, for legends."""
    line = f'<path class="line {style_class(style)}" d="M0 4H28"/>'
    return f'<svg class="key" viewBox="0 0 28 8" aria-hidden="true">{line}</svg>'


def short_label(text: str, longest: int = 24) -> str:
    """A label that fits into a chart: the end of a long one is left out."""
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def hover(text: str) -> str:
    """What a pointer over the enclosing element shows."""
    return f"<title>{escape(text)}</title>"


def svg(width: float, height: float, title: str, body: Sequence[str], kind: str = "chart") -> str:
    """An SVG element with a title, which screen readers read."""
    head = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
    return "".join([head, f"<title>{escape(title)}</title>", *body, "</svg>"])


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between ``low`` and ``high``: steps of 1, 2 or 5 times a power of ten."""
    if high - low <= 1e-9 * max(abs(low), abs(high), sys.float_info.min):
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between ``low`` and ``high``, with 2 and 5 times them if they are few; all positive."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 4 else (1,)
    step = max(1, len(decades) // 6)
    ticks = [factor * 10.0**power for power in decades[::step] for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _labels(ticks: Sequence[float]) -> list[str]:
    """Texts for the ticks of an axis, of which no two are the same."""
    rounded = [round(tick, 10) for tick in ticks]
    for digits in range(1, 10):
        labels = [_number(tick, digits) for tick in rounded]
        if len(set(labels)) == len(labels):
            break
    return labels


def _number(value: float, digits: int) -> str:
    """A number, of a small one so many digits after the first."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    if value == 0 or abs(value) >= 0.001:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


class Axes:
    """The axes of a chart: the mapping from data to pixels, the grid, ticks and labels.

    Args:
        x, y: ranges of the data; ``y`` is positive if ``log_y``.
        log_y: whether the vertical axis is logarithmic.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float], log_y: bool = False):
        self._x = _widened(x)
        self._y = (math.log10(y[0]), math.log10(y[1])) if log_y else _widened(y)
        self._y_ticks = log_ticks(*y) if log_y else nice_ticks(*self._y)
        self._log_y = log_y
        self.width, self.height = WIDTH, HEIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The position of a data point, in pixels."""
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        y = math.log10(y) if self._log_y else y
        across = LEFT + (x - self._x[0]) / (self._x[1] - self._x[0]) * (right - LEFT)
        return across, bottom - (y - self._y[0]) / (self._y[1] - self._y[0]) * (bottom - TOP)

    def frame(self, x_label: str, y_label: str, x_ticks: Sequence[float] | None = None) -> list[str]:
        """SVG elements of the grid, the ticks and the labels."""
        bottom = self.height - BOTTOM
        parts = []
        for tick, label in zip(self._y_ticks, _labels(self._y_ticks), strict=True):
            _, y = self.at(self._x[0], tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{self.width - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        x_ticks = nice_ticks(*self._x) if x_ticks is None else x_ticks
        for tick, label in zip(x_ticks, _labels(x_ticks), strict=True):
            x, _ = self.at(tick, 1.0)
            parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
        middle = (LEFT + self.width - RIGHT) / 2
        parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{self.width - RIGHT}"/>')
        parts.append(f'<text x="{middle}" y="{self.height - 6}" text-anchor="middle">{escape(x_label)}</text>')
        y_middle = (TOP + bottom) / 2
        turned = f'transform="rotate(-90 10 {y_middle})"'
        parts.append(f'<text x="10" y="{y_middle + 3}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
        return parts


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    """The range, widened if its length is 0 or lost in rounding."""
    low, high = span
    return (low, high) if high - low > 1e-9 * max(abs(low), abs(high), sys.float_info.min) else (low - 0.5, high + 0.5)


def line_chart(
    series: Sequence[Series], x_label: str, y_label: str, title: str, whole_x: bool = False, decades: bool = False
) -> str:
    """Lines on common axes; an empty string if no series has a point.

    Args:
        series: the lines.
        x_label, y_label, title: names of the axes and of the chart.
        whole_x: whether only whole numbers have ticks on the horizontal axis.
        decades: whether the vertical axis is logarithmic if all values are positive and the largest is at least
            LOGARITHMIC times the smallest.
    """
    shown = [one for one in series if one.points]
    if not shown:
        return ""
    xs = [x for one in shown for x, _ in one.points]
    ys = [y for one in shown for _, y in one.points]
    low, high = min(ys), max(ys)
    log_y = decades and low > 0 and high / low >= LOGARITHMIC
    margin = 0.05 * ((high - low) or 1)
    axes = Axes((min(xs), max(xs)), (low / 1.2, high * 1.2) if log_y else (low - margin, high + margin), log_y)
    y_label = f"{y_label}, log scale" if log_y else y_label
    ticks = [t for t in nice_ticks(min(xs), max(xs)) if t == int(t)] if whole_x else None
    body = axes.frame(x_label, y_label, ticks)
    for one in shown:
        places = [axes.at(x, y) for x, y in one.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        kind = f"line {style_class(one.style)}{' faint' if one.faint else ''}"
        body.append(f'<path class="{kind}" d="{path}">{hover(one.name)}</path>')
        if one.dots:
            body += [
                f'<circle class="dot c{one.style % COLORS}" cx="{a:.1f}" cy="{b:.1f}" r="3">'
                f"{hover(f'{one.name}, {x_label} {x:g}: {y:.4g}')}</circle>"
                for (a, b), (x, y) in zip(places, one.points, strict=True)
            ]
    return svg(WIDTH, HEIGHT, title, body)


def smoothed(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Running mean over ``window`` points, placed at the last of them."""
    if window <= 1 or len(points) < window:
        return list(points)
    means = np.convolve([y for _, y in points], np.ones(window) / window, mode="valid")
    return [(points[index + window - 1][0], float(mean)) for index, mean in enumerate(means)]


def thinned(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """About ``most`` evenly spaced points, always including the last."""
    step = max(1, math.ceil(len(points) / most))
    kept = list(points[::step])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
