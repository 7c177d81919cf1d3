"""A chart of one value per protein, as inline SVG: a strip of dots per model, and its median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from tape.report.line_charts import COLORS, hover, nice_ticks, short_label, svg

MOST_DOTS = 400  # per strip
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 12, 12, 4, 38
_STRIP = 46  # pixels, of which the lowest _DOTS have the dots
_DOTS = 26


@dataclass(frozen=True)
class Strip:
    """The proteins of one model.

    Attributes:
        name: name of the model.
        style: style number.
        names: names of the N proteins.
        values: (N,) values from 0 to 1; ``nan`` is not drawn.
    """

    name: str
    style: int
    names: Sequence[str]
    values: np.ndarray


def strip_chart(strips: Sequence[Strip], x_label: str, title: str) -> str:
    """A strip per model; a pointer over a dot shows the protein. At most MOST_DOTS per model, sampled with seed 0."""
    bottom = _TOP + _STRIP * len(strips)
    body = []
    for tick in nice_ticks(0.0, 1.0):
        x = _across(tick)
        body.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        body.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{tick:.1f}</text>')
    body.append(f'<text x="{_WIDTH / 2}" y="{bottom + 32}" text-anchor="middle">{escape(x_label)}</text>')
    for number, strip in enumerate(strips):
        body += _strip(strip, _TOP + _STRIP * number)
    return svg(_WIDTH, bottom + _BOTTOM, title, body)


def _across(value: float) -> float:
    return _LEFT + value * (_WIDTH - _LEFT - _RIGHT)


def _strip(strip: Strip, top: float) -> list[str]:
    drawn = np.flatnonzero(~np.isnan(strip.values))
    if not drawn.size:
        return []
    median = float(np.median(strip.values[drawn]))
    if drawn.size > MOST_DOTS:
        drawn = np.sort(np.random.default_rng(0).choice(drawn, MOST_DOTS, replace=False))
    first = top + _STRIP - _DOTS
    x = _across(median)
    parts = [
        f'<text x="{_LEFT}" y="{top + 14:.1f}">{escape(short_label(strip.name, 50))}</text>',
        f'<g class="points c{strip.style % COLORS}">',
    ]
    for place, index in enumerate(drawn.tolist()):
        value = float(strip.values[index])
        height = first + 3 + (_DOTS - 8) * (place * 0.618 % 1)  # spread evenly, as the golden ratio does
        text = hover(f"{strip.names[index]}: {value:.3f}")
        parts.append(f'<circle cx="{_across(value):.1f}" cy="{height:.1f}" r="2">{text}</circle>')
    parts.append("</g>")
    parts.append(f'<path class="whisker" d="M{x:.1f} {first}v{_DOTS - 2}">{hover(f"median {median:.3f}")}</path>')
    return parts
