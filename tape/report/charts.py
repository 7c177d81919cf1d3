"""The report's charts as inline SVG: curves, contact maps, confusion matrices, scatter plots, bars with intervals.

The charts are written as plain text, so the page needs no library and no network. Colors are classes of the page's
style sheet (``c0``, ``c1`` ...), which defines them for light, dark and printed pages. Screen readers read each chart's
title. A prototype with matplotlib's SVG was about 80 lines shorter, but matplotlib is an optional dependency, five
charts took 142 kB instead of 28 kB, and the confusion matrix, whose colors are fixed, was illegible in dark mode.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from tape.metrics import Metric
from tape.metrics.contacts import MINIMUM_SEPARATION, contact_scores
from tape.metrics.original_contacts import expected_hits
from tape.report.seeds import SeedMean

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 60, 10, 12, 40
MOST_POINTS = 1500
LARGEST_SHOWN = 1e15  # values beyond it, which only damaged files have, are not drawn


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (x, y), name in the legend, color number, and whether it is thin and pale."""

    name: str
    points: Sequence[tuple[float, float]]
    color: int
    faint: bool = False
    dots: bool = False


def _svg(width: float, height: float, title: str, body: Sequence[str], kind: str = "chart") -> str:
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
    return f"{value:g}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


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
    return _svg(WIDTH, HEIGHT, title, body)


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


def contact_map(result: dict[str, Any], column: str, color: int) -> tuple[str, float]:
    """Contact map of one protein: true contacts below the diagonal, the L best-scored pairs above (filled: correct).

    Returns:
        The chart and the precision of those pairs (``nan`` if there are none). Of pairs that share the L-th highest
        score, the first are drawn; the precision is the expectation over their order, as in the tables.
    """
    target = np.asarray(result["target"])
    length = target.shape[0]
    scores = np.nan_to_num(contact_scores(np.asarray(result["prediction"], dtype=np.float32)), nan=-np.inf)
    rows, columns = np.triu_indices(length, MINIMUM_SEPARATION)
    counted = target[rows, columns] >= 0
    rows, columns = rows[counted], columns[counted]
    best = np.argsort(-scores[rows, columns], kind="stable")[:length]
    right = target[rows[best], columns[best]] == 1
    (expected,) = expected_hits(scores[rows, columns], target[rows, columns], [length])
    precision = expected / right.size if right.size else math.nan
    size = 300.0
    cell = size / length
    below = np.argwhere(np.tril(target == 1))
    body = [
        f'<rect class="frame" x=".5" y=".5" width="{size - 1:g}" height="{size - 1:g}"/>',
        f'<path class="grid" d="M0 0L{size:g} {size:g}"/>',
        f'<path class="true" d="{_squares(below[:, 1], below[:, 0], cell)}"/>',
        f'<path class="fill c{color}" d="{_squares(columns[best[right]], rows[best[right]], cell)}"/>',
        f'<path class="open c{color}" d="{_squares(columns[best[~right]], rows[best[~right]], cell)}"/>',
    ]
    title = (
        f"Contact map of {result.get('id', '')} by {column}: {expected:.4g} of the {right.size} best pairs are contacts"
    )
    return _svg(size, size, title, body, "map"), precision


def _squares(x: np.ndarray, y: np.ndarray, cell: float) -> str:
    """An SVG path with one square per pair, at least 2 pixels wide to be visible."""
    side = max(cell, 2.0)
    step = f"h{side:.1f}v{side:.1f}h-{side:.1f}z"
    return "".join(f"M{a * cell:.1f} {b * cell:.1f}{step}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def confusion_matrix(counts: np.ndarray, labels: Sequence[str], title: str) -> str:
    """Rows are true classes, columns predicted ones; shade and number are the share of the row, in percent."""
    number, cell, left, top = len(labels), 280.0 / len(labels), 44.0, 34.0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    body = [f'<text x="{left + 140}" y="11" text-anchor="middle">predicted</text>']
    body.append(f'<text x="10" y="{top + 140}" text-anchor="middle" transform="rotate(-90 10 {top + 140})">true</text>')
    for index, label in enumerate(labels):
        middle = (index + 0.5) * cell
        body.append(f'<text x="{left + middle:.1f}" y="{top - 6}" text-anchor="middle">{escape(label)}</text>')
        body.append(f'<text x="{left - 8}" y="{top + middle + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for row in range(number):
        for column in range(number):
            share = float(shares[row, column])
            x, y = left + column * cell, top + row * cell
            size = f'width="{cell - 1:.1f}" height="{cell - 1:.1f}"'
            body.append(f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" {size} fill-opacity="{share:.2f}"/>')
            shade = " on" if share > 0.8 else ""
            place = f'x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" text-anchor="middle"'
            body.append(f'<text class="number{shade}" {place}>{100 * share:.0f}</text>')
    return _svg(left + 282, top + 282, title, body, "map")


def scatter_chart(true: np.ndarray, predicted: np.ndarray, color: int, title: str) -> str:
    """Predicted against true values, with the diagonal; at most MOST_POINTS proteins, sampled with seed 0."""
    drawn = (np.abs(true) < LARGEST_SHOWN) & (np.abs(predicted) < LARGEST_SHOWN)  # False for nan
    true, predicted = true[drawn], predicted[drawn]
    if not true.size:
        return ""
    if true.size > MOST_POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(true.size, MOST_POINTS, replace=False))
        true, predicted = true[chosen], predicted[chosen]
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    axes = Axes((low, high), (low, high))  # one scale for both axes, or a constant prediction would look spread out
    (x0, y0), (x1, y1) = axes.at(low, low), axes.at(high, high)
    body = axes.frame("true", "predicted")
    body.append(f'<path class="equal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>')
    places = [axes.at(x, y) for x, y in zip(true.tolist(), predicted.tolist(), strict=True)]
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
    body.append(f'<path class="points c{color}" d="{dots}"/>')
    return _svg(WIDTH, HEIGHT, title, body)


def bar(value: float, interval: tuple[float, float] | None, span: tuple[float, float], color: str) -> str:
    """A bar on an axis from ``span[0]`` to ``span[1]``, with its interval; the table shows the number beside it."""

    def place(x: float) -> float:
        return 200 * (min(max(x, span[0]), span[1]) - span[0]) / (span[1] - span[0])

    zero, end = place(0.0), place(value)
    body = ['<path class="grid" d="M0 8H200"/>']
    body.append(f'<rect class="fill {color}" x="{min(zero, end):.1f}" y="4" width="{abs(end - zero):.1f}" height="8"/>')
    if interval is not None:
        low, high = (place(end) for end in interval)
        body.append(f'<path class="whisker" d="M{low:.1f} 8H{high:.1f}M{low:.1f} 4v8M{high:.1f} 4v8"/>')
    head = '<svg class="bar" viewBox="0 0 200 16" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
    return "".join([head, *body, "</svg>"])


def whiskers(metric: Metric) -> tuple[float, float] | None:
    """Ends of the whisker: the bootstrap interval of a run, or mean minus and plus one standard deviation."""
    return metric.reach if isinstance(metric, SeedMean) else metric.interval


def common_span(metrics: Sequence[Metric | None], published: Sequence[float]) -> tuple[float, float]:
    """A common axis for bars that are compared: from 0 or the lowest value to the highest, rounded to tenths."""
    values = [*published]
    for metric in metrics:
        if metric is not None and math.isfinite(metric.value):
            values += [metric.value, *(whiskers(metric) or ())]
    values = [min(max(value, -LARGEST_SHOWN), LARGEST_SHOWN) for value in values if math.isfinite(value)]
    low, high = min([0.0, *values]), max([0.1, *values])
    return math.floor(low * 10) / 10, math.ceil(high * 10) / 10
