"""Charts: their numbers by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tape.metrics import Metric
from tape.metrics.contacts import NAMES, measure_contacts
from tape.report import charts
from tape.report.line_charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH


def test_a_bar_begins_at_zero_and_ends_at_the_value() -> None:
    drawing = ElementTree.fromstring(charts.bar(-0.25, (-0.5, 0.0), (-0.5, 0.5), "c1"))
    rectangle = next(element for element in drawing if element.tag == "rect")
    assert (rectangle.get("x"), rectangle.get("width")) == ("50.0", "50.0")
    whisker = next(element for element in drawing if element.get("class") == "whisker")
    assert str(whisker.get("d")).startswith("M0.0 8H100.0")


def test_bars_share_a_scale() -> None:
    assert charts.common_span([Metric("", 4.2e-4, 1, "", (3e-4, 6e-4)), None], []) == pytest.approx((0.0, 6e-4))
    assert charts.common_span([Metric("", 0.0, 1, "")], []) == (0.0, 0.1)
    assert charts.common_span([Metric("", 0.52, 1, "", (0.4, 0.61)), None], [0.3]) == (0.0, 0.7)
    low, high = charts.common_span([Metric("", -0.13, 1, "")], [0.19])
    assert (low, high) == pytest.approx((-0.2, 0.2))


def test_a_contact_map_counts_the_l_highest_scoring_pairs() -> None:
    target = np.zeros((10, 10), dtype=int)
    target[0, 8] = target[8, 0] = target[1, 9] = target[9, 1] = 1
    scores = np.zeros((10, 10))
    scores[0, 8] = scores[8, 0] = 5.0
    drawing, precision = charts.contact_map({"id": "x", "prediction": scores, "target": target}, "mine", 2)
    assert precision == pytest.approx(0.2)  # 10 pairs at separation 6 or more, two of them contacts
    assert "2 of the 10 best pairs are contacts" in drawing


def test_a_contact_map_counts_equal_scores_by_expectation() -> None:
    """As P@L of the tables does: of 15 pairs with one score, 10 are counted, whichever they are."""
    target = np.zeros((11, 11), dtype=int)
    target[0, 6] = target[0, 7] = target[0, 8] = 1
    result = {"id": "x", "prediction": np.zeros((11, 11)), "target": target}
    drawing, precision = charts.contact_map(result, "mine", 2)
    row = measure_contacts(result["prediction"], target)
    assert precision == pytest.approx(row.precisions[NAMES.index("precision_at_l")])
    assert precision == pytest.approx(3 / 15)
    assert "2.2 of the 11 best pairs are contacts" in drawing


@pytest.mark.parametrize(("length", "expected"), [(8, "1 2 4 6 8"), (178, "1 50 100 150")])
def test_the_axes_of_a_contact_map_number_residues(length: int, expected: str) -> None:
    result = {"id": "x", "prediction": np.zeros((length, length)), "target": np.zeros((length, length), dtype=int)}
    drawing = ElementTree.fromstring(charts.contact_map(result, "mine", 2)[0])
    numbers = [text.text for text in drawing.iter("text") if text.text != "residue"]
    assert numbers[::2] == numbers[1::2] == expected.split()  # below and beside the map


def test_points_at_the_ends_are_inside_the_axes_of_the_named_quantity() -> None:
    values = np.array([1.0, 2.0])
    drawing = ElementTree.fromstring(charts.scatter_chart(values, values, 1, "title", ["a", "b"], "Tm"))
    assert {"true Tm", "predicted Tm"} <= {text.text for text in drawing.iter("text")}
    for circle in drawing.iter("circle"):
        assert LEFT + 3 < float(circle.get("cx", 0)) < WIDTH - RIGHT - 3
        assert TOP + 3 < float(circle.get("cy", 0)) < HEIGHT - BOTTOM - 3


def test_a_confusion_matrix_shows_shares_of_the_true_class() -> None:
    drawing = ElementTree.fromstring(charts.confusion_matrix(np.array([[3, 1], [0, 0]]), "HE", "title"))
    numbers = [element.text for element in drawing if "number" in str(element.get("class"))]
    assert numbers == ["75", "25", "0", "0"]


def test_a_pointer_over_a_point_shows_the_protein() -> None:
    values = np.array([np.nan, 1.0, 2.0])
    drawing = ElementTree.fromstring(charts.scatter_chart(values, values / 2, 1, "title", ["P0", "<P1>", "P2"]))
    shown = [circle.findtext("title") for circle in drawing.iter("circle")]
    assert shown == ["<P1>: true 1, predicted 0.5", "P2: true 2, predicted 1"]


def test_a_pointer_over_a_cell_shows_its_count() -> None:
    matrix = ElementTree.fromstring(charts.confusion_matrix(np.array([[30, 10], [0, 2]]), ["in", "out"], "title"))
    assert "in predicted as out: 10 of 40" in [cell.findtext("title") for cell in matrix.iter("rect")]


def test_many_or_long_class_names_fit_into_a_confusion_matrix() -> None:
    names = ["endoplasmic reticulum membrane", *(f"class {number}" for number in range(39))]
    drawing = ElementTree.fromstring(charts.confusion_matrix(np.eye(40), names, "title"))
    texts = [text for text in drawing.iter("text") if text.get("style")]
    assert [text.text for text in texts[:2]] == ["endoplasmic retic\N{HORIZONTAL ELLIPSIS}"] * 2
    assert "rotate" in str(texts[0].get("transform"))  # a label is longer than its column is wide
    assert not [text for text in drawing.iter("text") if "number" in str(text.get("class"))]


def test_scatter_charts_of_many_proteins_show_a_sample() -> None:
    values = np.linspace(0, 1, charts.MOST_POINTS + 500)
    names = [f"P{number}" for number in range(values.size)]
    assert charts.scatter_chart(values, values, 1, "title", names).count("<circle") == charts.MOST_POINTS
    assert charts.scatter_chart(np.array([np.nan]), np.array([1.0]), 1, "title", ["P0"]) == ""
