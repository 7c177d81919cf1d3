"""Line charts as SVG, without a library: axes with round ticks, lines, and the smoothing of noisy curves.

Colors are classes (``c0``, ``c1`` ...) of the style sheet around a chart.
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
LARGEST_SHOWN = 1e15  # values beyond it, which only damaged files have, are not drawn


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (x, y), name in the legend, color number, and whether it is thin and pale."""

    name: str
    points: Sequence[tuple[float, float]]
    color: int
    faint: bool = False
    dots: bool = False


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


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    if value == 0 or abs(value) >= 0.001:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


class Axes:
    """The axes of a chart: the mapping from data to pixels, the grid, ticks and labels."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], width: float = WIDTH, height: float = HEIGHT):
        self._x, self._y = _widened(x), _widened(y)
        self.width, self.height = width, height

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The position of a data point, in pixels."""
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        across = LEFT + (x - self._x[0]) / (self._x[1] - self._x[0]) * (right - LEFT)
        return across, bottom - (y - self._y[0]) / (self._y[1] - self._y[0]) * (bottom - TOP)

    def frame(self, x_label: str, y_label: str, x_ticks: Sequence[float] | None = None) -> list[str]:
        """SVG elements of the grid, the ticks and the labels."""
        bottom = self.height - BOTTOM
        parts = []
        for tick in nice_ticks(*self._y):
            _, y = self.at(self._x[0], tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{self.width - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(round(tick, 10))}</text>')
        for tick in nice_ticks(*self._x) if x_ticks is None else x_ticks:
            x, _ = self.at(tick, self._y[0])
            parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(round(tick, 10))}</text>')
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


def line_chart(series: Sequence[Series], x_label: str, y_label: str, title: str, whole_x: bool = False) -> str:
    """Lines on common axes; an empty string if no series has a point."""
    shown = [one for one in series if one.points]
    if not shown:
        return ""
    xs = [x for one in shown for x, _ in one.points]
    ys = [y for one in shown for _, y in one.points]
    margin = 0.05 * ((max(ys) - min(ys)) or 1)
    axes = Axes((min(xs), max(xs)), (min(ys) - margin, max(ys) + margin))
    ticks = [t for t in nice_ticks(min(xs), max(xs)) if t == int(t)] if whole_x else None
    body = axes.frame(x_label, y_label, ticks)
    for one in shown:
        places = [axes.at(x, y) for x, y in one.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        body.append(f'<path class="line c{one.color}{" faint" if one.faint else ""}" d="{path}"/>')
        if one.dots:
            body += [f'<circle class="dot c{one.color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
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
