"""The report's charts of predictions and metrics as inline SVG: maps, confusion matrices, scatter plots and bars.

The charts are written as plain text, so the page needs no library and no network. Colors are classes of the page's
style sheet (``c0``, ``c1`` ...), which defines them for light, dark and printed pages. Screen readers read each chart's
title. A prototype with matplotlib's SVG was about 80 lines shorter, but matplotlib is an optional dependency, five
charts took 142 kB instead of 28 kB, and the confusion matrix, whose colors are fixed, was illegible in dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from tape.metrics import Metric
from tape.metrics.contacts import MINIMUM_SEPARATION, contact_scores
from tape.metrics.original_contacts import expected_hits
from tape.report.line_charts import HEIGHT, LARGEST_SHOWN, WIDTH, Axes, svg
from tape.report.seeds import SeedMean

MOST_POINTS = 1500


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
    return svg(size, size, title, body, "map"), precision


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
    return svg(left + 282, top + 282, title, body, "map")


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
    return svg(WIDTH, HEIGHT, title, body)


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
