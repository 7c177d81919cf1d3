"""Files of contact maps."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.errors import ConfigError
from tape.inference import contact_maps
from tape.inference.contact_maps import ContactMapFiles, draw_map, pairs_table
from tape.inference.predict import Prediction


def symmetric(length: int) -> np.ndarray:
    values = np.random.default_rng(0).random((length, length)).astype(np.float32)
    return (values + values.T) / 2


def test_pairs_are_listed_from_the_most_probable_one() -> None:
    chances = np.zeros((9, 9), dtype=np.float32)
    chances[0, 7] = chances[1, 8] = 0.25
    chances[1, 7] = 0.98765
    chances[0, 5] = 1.0  # too close in sequence
    assert pairs_table(chances).splitlines() == [
        "i,j,probability,separation",
        "2,8,0.9876,6",
        "1,8,0.2500,7",
        "2,9,0.2500,7",
        "1,7,0.0000,6",
        "1,9,0.0000,8",
        "3,9,0.0000,6",
    ]


def test_the_files_of_a_protein_are_named_by_number_and_id(tmp_path: Path) -> None:
    chances = symmetric(12)
    files = ContactMapFiles(tmp_path / "maps", pairs=True, plot=False)
    row = files.write(Prediction(3, "sp|P1|a/b", "ACDEFGHIKLMN", chances))
    assert row == {"contacts": int((np.triu(chances, 6) > 0.5).sum()), "map": "maps/000003_sp_P1_a_b.npz"}
    stored = np.load(tmp_path / row["map"])
    np.testing.assert_array_equal(stored["probabilities"], chances)
    assert (str(stored["sequence"]), str(stored["id"])) == ("ACDEFGHIKLMN", "sp|P1|a/b")
    assert sorted(path.suffix for path in (tmp_path / "maps").iterdir()) == [".csv", ".npz"]


@pytest.mark.parametrize("chances", [symmetric(40), symmetric(5), np.zeros((9, 9))], ids=["usual", "short", "zero"])
def test_a_picture_is_a_png(chances: np.ndarray) -> None:
    pytest.importorskip("matplotlib")
    stream = io.BytesIO()
    draw_map(stream, chances, "protein")
    assert stream.getvalue().startswith(b"\x89PNG")


def test_a_picture_names_the_protein_and_numbers_whole_residues(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    figures: list[Any] = []
    make = contact_maps.figure_class()
    monkeypatch.setattr(
        contact_maps, "figure_class", lambda: lambda **options: figures.append(make(**options)) or figures[-1]
    )
    draw_map(io.BytesIO(), symmetric(3), "an_id_of_many_letters_" * 9)
    draw_map(io.BytesIO(), symmetric(40), "short")
    for figure in figures:
        figure.draw_without_rendering()
        title, width = figure.axes[0].title, figure.bbox.width
        assert title.get_window_extent().x0 > 0
        assert title.get_window_extent().x1 < width
        assert all(
            tick == int(tick) for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis) for tick in axis.get_ticklocs()
        )
    assert [[text.get_text() for text in figure.texts] for figure in figures] == [
        [],
        ["dots: the 40 most probable pairs"],
    ]


def test_pictures_that_are_asked_for_need_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"--plot needs matplotlib .*pip install 'proteinlm\[plots\]'"):
        ContactMapFiles(tmp_path, plot=True)
