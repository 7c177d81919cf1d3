"""Line charts: ticks, axes, smoothing."""

from __future__ import annotations

import math

import pytest

from tape.report import line_charts


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.7, 12, [2, 4, 6, 8, 10, 12]), (-30, 40, [-20, 0, 20, 40]), (3, 3, [3])],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, ticks: list[float]) -> None:
    assert line_charts.nice_ticks(low, high) == pytest.approx(ticks)


def test_axes_map_corners_to_corners() -> None:
    axes = line_charts.Axes((0, 10), (-1, 1))
    assert axes.at(0, -1) == (line_charts.LEFT, line_charts.HEIGHT - line_charts.BOTTOM)
    assert axes.at(10, 1) == (line_charts.WIDTH - line_charts.RIGHT, line_charts.TOP)
    assert math.isfinite(line_charts.Axes((2, 2), (5, 5)).at(2, 5)[0])  # one point is no range


def test_curves_are_smoothed_and_thinned() -> None:
    points = [(float(i), float(i * i)) for i in range(4)]
    assert line_charts.smoothed(points, 2) == [(1.0, 0.5), (2.0, 2.5), (3.0, 6.5)]
    assert line_charts.smoothed(points, 9) == points
    kept = line_charts.thinned([(float(i), 0.0) for i in range(1000)], 400)
    assert len(kept) <= 401
    assert (kept[0][0], kept[-1][0]) == (0.0, 999.0)


def test_a_chart_without_points_is_empty() -> None:
    assert line_charts.line_chart([line_charts.Series("a", [], 1)], "x", "y", "title") == ""
