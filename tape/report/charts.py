"""The report's charts of predictions and metrics as inline SVG: maps, confusion matrices, scatter plots and bars.

The charts are written as plain text, so the page needs no library and no network. Colors and dashes are classes of the
page's style sheet (``c0``, ``d1`` ...), which defines them for light, dark and printed pages. Screen readers read each
chart's title; a pointer over a point, a line or a cell shows what it is. A prototype with matplotlib's SVG was
about 80 lines shorter, but matplotlib is an optional dependency, five charts took 142 kB instead of 28 kB, and the
confusion matrix, whose colors are fixed, was illegible in dark mode.
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
from tape.report.line_charts import COLORS, HEIGHT, LARGEST_SHOWN, WIDTH, Axes, hover, nice_ticks, short_label, svg
from tape.report.seeds import SeedMean

MOST_POINTS = 1000
LONGEST_LABEL = 18  # characters of a class in a confusion matrix
SMALLEST_NUMBERED_CELL = 17.0  # pixels
_MAP_LEFT, _MAP_TOP = 50.0, 6.0  # of the square of a contact map
_FEW_POINTS = 200  # of which each is larger


def contact_map(result: dict[str, Any], column: str, style: int) -> tuple[str, float]:
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
    size, color = 300.0, style % COLORS
    cell = size / length
    below = np.argwhere(np.tril(target == 1))
    body = [
        f'<g transform="translate({_MAP_LEFT:g} {_MAP_TOP:g})">',
        *_residue_numbers(length, size),
        f'<rect class="frame" x=".5" y=".5" width="{size - 1:g}" height="{size - 1:g}"/>',
        f'<path class="grid" d="M0 0L{size:g} {size:g}"/>',
        f'<path class="true" d="{_squares(below[:, 1], below[:, 0], cell)}"/>',
        f'<path class="fill c{color}" d="{_squares(columns[best[right]], rows[best[right]], cell)}"/>',
        f'<path class="open c{color}" d="{_squares(columns[best[~right]], rows[best[~right]], cell)}"/>',
        "</g>",
    ]
    title = (
        f"Contact map of {result.get('id', '')} by {column}: {expected:.4g} of the {right.size} best pairs are contacts"
    )
    return svg(size + _MAP_LEFT + 2, size + _MAP_TOP + 34, title, body, "map"), precision


def _residue_numbers(length: int, size: float) -> list[str]:
    """The ticks and labels of a contact map's axes, with residues from 1."""
    middle, parts = size / 2, []
    for tick in [1.0, *(tick for tick in nice_ticks(0, length) if tick == int(tick) > 1)]:
        at = (tick - 0.5) / length * size
        parts.append(f'<path class="axis" d="M{at:.1f} {size:g}v4M0 {at:.1f}h-4"/>')
        parts.append(f'<text x="{at:.1f}" y="{size + 16:g}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="-7" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{middle:g}" y="{size + 31:g}" text-anchor="middle">residue</text>')
    turned = f'transform="rotate(-90 -42 {middle:g})"'
    parts.append(f'<text x="-42" y="{middle + 3:g}" text-anchor="middle" {turned}>residue</text>')
    return parts


def _squares(x: np.ndarray, y: np.ndarray, cell: float) -> str:
    """An SVG path with one square per pair, at least 2 pixels wide to be visible."""
    side = max(cell, 2.0)
    step = f"h{side:.1f}v{side:.1f}h-{side:.1f}z"
    return "".join(f"M{a * cell:.1f} {b * cell:.1f}{step}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def confusion_matrix(counts: np.ndarray, labels: Sequence[str], title: str) -> str:
    """Rows are true classes, columns predicted ones; shade and number are the share of the row, in percent.

    The numbers are left out, and the labels small, if the cells of many classes are too small for them.
    """
    number, cell, top = len(labels), 280.0 / len(labels), 34.0
    shown = [short_label(label, LONGEST_LABEL) for label in labels]
    font = min(11.0, cell)
    longest = 0.62 * font * max(map(len, shown))
    left, turned = 32.0 + longest, longest > cell
    top = 22.0 + (longest if turned else font)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    body = [f'<text x="{left + 140:.1f}" y="11" text-anchor="middle">predicted</text>']
    place = f'x="10" y="{top + 140:.1f}" transform="rotate(-90 10 {top + 140:.1f})"'
    body.append(f'<text {place} text-anchor="middle">true</text>')
    size = f'style="font-size:{font:.1f}px"'
    for index, label in enumerate(map(escape, shown)):
        middle = (index + 0.5) * cell
        x, y = left + middle, top - 6
        if turned:
            at = f'x="{x + font / 3:.1f}" y="{y:.1f}" transform="rotate(-90 {x + font / 3:.1f} {y:.1f})"'
        else:
            at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="middle"'
        body.append(f"<text {at} {size}>{label}</text>")
        body.append(
            f'<text x="{left - 6:.1f}" y="{top + middle + font / 3:.1f}" text-anchor="end" {size}>{label}</text>'
        )
    for row in range(number):
        for column in range(number):
            share = float(shares[row, column])
            x, y = left + column * cell, top + row * cell
            square = f'x="{x:.1f}" y="{y:.1f}" width="{cell * 0.97:.1f}" height="{cell * 0.97:.1f}"'
            text = f"{labels[row]} predicted as {labels[column]}: {counts[row, column]:,} of {counts[row].sum():,}"
            body.append(f'<rect class="cell" {square} fill-opacity="{share:.2f}">{hover(text)}</rect>')
            if cell >= SMALLEST_NUMBERED_CELL:
                place = f'x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" text-anchor="middle"'
                shade = " on" if share > 0.8 else ""
                body.append(f'<text class="number{shade}" {place}>{100 * share:.0f}</text>')
    return svg(left + 282, top + 282, title, body, "map")


def scatter_chart(
    true: np.ndarray, predicted: np.ndarray, style: int, title: str, names: Sequence[str], quantity: str = ""
) -> str:
    """Predicted against true values, with the diagonal; at most MOST_POINTS proteins, sampled with seed 0.

    Args:
        true, predicted: (N,) values.
        style: style number.
        title: title of the chart.
        names: names of the N proteins, which a pointer over their points shows.
        quantity: what the values are, for the labels of the axes.
    """
    drawn = np.flatnonzero((np.abs(true) < LARGEST_SHOWN) & (np.abs(predicted) < LARGEST_SHOWN))  # not nan
    if not drawn.size:
        return ""
    if drawn.size > MOST_POINTS:
        drawn = np.sort(np.random.default_rng(0).choice(drawn, MOST_POINTS, replace=False))
    true, predicted = true[drawn], predicted[drawn]
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    margin = 0.04 * (high - low)  # for the points at the ends
    span = (low - margin, high + margin)
    axes = Axes(span, span)  # one scale for both axes, or a constant prediction would look spread out
    (x0, y0), (x1, y1) = axes.at(low, low), axes.at(high, high)
    shown = f" {short_label(quantity)}" if quantity else ""
    body = axes.frame(f"true{shown}", f"predicted{shown}")
    radius = 3 if drawn.size <= _FEW_POINTS else 2
    body.append(f'<path class="equal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>')
    body.append(f'<g class="points c{style % COLORS}">')
    for number, x, y in zip(drawn.tolist(), true.tolist(), predicted.tolist(), strict=True):
        across, down = axes.at(x, y)
        text = f"{names[number]}: true {x:.4g}, predicted {y:.4g}"
        body.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="{radius}">{hover(text)}</circle>')
    body.append("</g>")
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
    """A common axis for bars that are compared: from 0 or the lowest value to the highest.

    It ends at tenths, or, if all values are below one tenth, at the first digit of the largest.
    """
    values = [*published]
    for metric in metrics:
        if metric is not None and math.isfinite(metric.value):
            values += [metric.value, *(whiskers(metric) or ())]
    values = [min(max(value, -LARGEST_SHOWN), LARGEST_SHOWN) for value in values if math.isfinite(value)]
    largest = max(map(abs, values), default=0.0)
    if largest < 1e-30:  # whose power of ten may be infinite
        return 0.0, 0.1
    steps = 10.0 if largest >= 0.1 else 10.0 ** -math.floor(math.log10(largest))  # per unit
    return math.floor(min([0.0, *values]) * steps) / steps, math.ceil(max([0.0, *values]) * steps) / steps
