"""Strip charts: a dot per protein."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np

from tape.report.strip_charts import MOST_DOTS, Strip, strip_chart


def test_a_pointer_over_a_dot_shows_the_protein() -> None:
    strips = [
        Strip("mine", 1, ["<P0>", "P1", "P2"], np.array([0.25, np.nan, 0.75])),
        Strip("other", 2, ["P3"], np.array([1.0])),
    ]
    drawing = ElementTree.fromstring(strip_chart(strips, "accuracy", "title"))
    dots = [dot.findtext("title") for dot in drawing.iter("circle")]
    assert dots == ["<P0>: 0.250", "P2: 0.750", "P3: 1.000"]
    medians = [path.findtext("title") for path in drawing.iter("path") if path.get("class") == "whisker"]
    assert medians == ["median 0.500", "median 1.000"]
    height = float(str(drawing.get("viewBox")).split()[3])
    assert all(0 < float(str(dot.get("cy"))) < height for dot in drawing.iter("circle"))


def test_many_proteins_are_sampled() -> None:
    names = [f"P{number}" for number in range(MOST_DOTS + 100)]
    drawing = strip_chart([Strip("mine", 0, names, np.linspace(0, 1, len(names)))], "accuracy", "title")
    assert drawing.count("<circle") == MOST_DOTS
    assert "median 0.500" in drawing  # of all


def test_a_model_without_values_has_no_dots() -> None:
    assert "<circle" not in strip_chart([Strip("mine", 0, ["P0"], np.array([np.nan]))], "accuracy", "title")
