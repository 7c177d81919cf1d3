"""Line charts: ticks, axes, smoothing, colors."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tape.report import line_charts
from tape.report.page import STYLE


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.7, 12, [2, 4, 6, 8, 10, 12]), (-30, 40, [-20, 0, 20, 40]), (3, 3, [3])],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, ticks: list[float]) -> None:
    assert line_charts.nice_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("span", [(9.992e-4, 1e-3), (1e-9, 3e-9), (0, 1e5), (2.3e-5, 4.7e-5)])
def test_no_two_ticks_have_the_same_label(span: tuple[float, float]) -> None:
    """A learning rate near 1e-3 had five ticks called 1e-3."""
    texts = re.findall(r'text-anchor="end">([^<]+)<', "".join(line_charts.Axes((0, 1), span).frame("x", "y")))
    assert len(texts) > 2
    assert len(set(texts)) == len(texts)


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


def test_a_pointer_over_a_line_shows_its_name_and_over_a_dot_its_value() -> None:
    series = line_charts.Series("mine", [(1.0, 0.5), (2.0, 0.25)], 1, dots=True)
    drawing = ElementTree.fromstring(line_charts.line_chart([series], "epoch", "loss", "title"))
    assert [path.findtext("title") for path in drawing.iter("path") if "line" in str(path.get("class"))] == ["mine"]
    dots = [dot.findtext("title") for dot in drawing.iter("circle")]
    assert dots == ["mine, epoch 1: 0.5", "mine, epoch 2: 0.25"]


@pytest.mark.parametrize(
    ("lowest", "logarithmic"), [(0.5, False), (4.0 / line_charts.LOGARITHMIC, True), (0.0, False), (-1.0, False)]
)
def test_the_axis_of_losses_over_decades_is_logarithmic(lowest: float, logarithmic: bool) -> None:
    series = line_charts.Series("mine", [(1.0, 4.0), (2.0, lowest)], 0)
    drawing = line_charts.line_chart([series], "epoch", "loss", "title", decades=True)
    assert ("loss, log scale" in drawing) == logarithmic
    assert "log scale" not in line_charts.line_chart([series], "epoch", "accuracy", "title")


def test_a_logarithmic_axis_has_equal_distances_for_equal_ratios() -> None:
    axes = line_charts.Axes((0, 1), (0.01, 100.0), log_y=True)
    heights = [axes.at(0, y)[1] for y in (0.01, 0.1, 1.0, 10.0, 100.0)]
    assert np.diff(heights) == pytest.approx([heights[1] - heights[0]] * 4)
    assert line_charts.log_ticks(0.03, 4.0) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])
    assert line_charts.log_ticks(3e-4, 4e3) == pytest.approx([1e-3, 1e-2, 0.1, 1, 10, 100, 1e3])


def test_many_runs_have_different_lines() -> None:
    styles = [line_charts.style_class(number) for number in range(line_charts.COLORS * line_charts.DASHES)]
    assert len(set(styles)) == len(styles)


# Views of the page's colors: as they are, and as people with the three forms of color blindness see them (Machado,
# Oliveira and Fernandes 2009, severity 1, on linear RGB).
_VIEWS = {
    "full color vision": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def _cielab(linear: np.ndarray) -> np.ndarray:
    """(colors, 3) CIELAB from linear RGB, for the white point D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(linear, 0, 1) @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("view", _VIEWS)
@pytest.mark.parametrize("theme", [0, 1])
def test_all_colors_differ_for_every_reader(theme: int, view: str) -> None:
    """A difference of 2.3 is just noticeable side by side; lines in a chart need ten times as much."""
    style = STYLE.read_text(encoding="utf-8")
    codes = [re.findall(rf"--c{number}: #(\w{{6}})", style)[theme] for number in range(line_charts.COLORS)]
    colors = np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    lab = _cielab(linear @ _VIEWS[view].T)
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)
    assert distances[np.triu_indices(line_charts.COLORS, 1)].min() > 25
