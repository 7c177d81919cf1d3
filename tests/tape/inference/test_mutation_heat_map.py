"""The heat map of single substitutions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.errors import ConfigError
from tape.inference import mutation_heat_map
from tape.inference.all_singles import AMINO_ACIDS, SingleScores
from tape.inference.mutation_heat_map import ROWS, check_heat_map_file, draw_heat_map

pytest.importorskip("matplotlib")


def scores(sequence: str) -> SingleScores:
    values = np.random.default_rng(0).normal(size=(len(sequence), 20))
    values[range(len(sequence)), [AMINO_ACIDS.index(residue) for residue in sequence]] = 0
    return SingleScores("p", sequence, "masked_marginal", values)


def test_every_amino_acid_has_a_row() -> None:
    assert sorted(ROWS) == sorted(AMINO_ACIDS)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn."""
    drawn: list[Any] = []
    make = mutation_heat_map.figure_class()
    monkeypatch.setattr(
        mutation_heat_map, "figure_class", lambda: lambda **options: drawn.append(make(**options)) or drawn[-1]
    )
    return drawn


def test_colors_and_marks_are_at_their_residues(tmp_path: Path, figures: list[Any]) -> None:
    """Two panels of the positions 11 to 110 and 111 to 130; the wild type is marked, and the cell of 0."""
    shown = scores("ACDEFGHIKLMNPQRSTVWY" * 6)
    draw_heat_map(tmp_path / "x.png", shown, 11)
    first, second = figures[0].axes[:2]
    table = first.images[0].get_array()
    assert table.shape == (20, 100)
    assert second.images[0].get_array().shape == (20, 20)
    assert table[ROWS.index("W"), 3] == shown.values[3, AMINO_ACIDS.index("W")]
    assert first.images[0].get_extent()[:2] == [10.5, 110.5]
    x, y = first.lines[0].get_data()
    assert (x[3], y[3]) == (14, ROWS.index("E"))
    assert table[y[3], 3] == 0
    assert first.get_xticks().tolist() == [11, *range(20, 101, 10), 110]
    assert second.get_xticks().tolist() == [111, 120, 130]


@pytest.mark.parametrize(
    ("length", "expected"), [(1, [1]), (2, [1, 2]), (12, [1, 2, 4, 6, 8, 10, 12]), (107, [101, 107])]
)
def test_the_numbered_positions_are_those_of_the_protein(
    length: int, expected: list[int], tmp_path: Path, figures: list[Any]
) -> None:
    draw_heat_map(tmp_path / "x.png", scores("M" * length))
    *panels, _bar = figures[0].axes
    assert panels[-1].get_xticks().tolist() == expected


def test_a_long_name_fits_into_a_small_picture(tmp_path: Path, figures: list[Any]) -> None:
    shown = scores("MKV")
    draw_heat_map(tmp_path / "x.png", SingleScores("a_long_name_" * 9, shown.sequence, shown.method, shown.values))
    title = figures[0]._suptitle.get_window_extent()
    assert 0 < title.x0 < title.x1 < figures[0].bbox.width


def test_the_colors_are_scaled_without_residues_that_models_hardly_know(tmp_path: Path, figures: list[Any]) -> None:
    """The substitutions of X are likely all; they had taken the colors of the others."""
    values = np.full((3, 20), 0.5)
    values[1] = 9.0
    draw_heat_map(tmp_path / "x.png", SingleScores("p", "MXV", "masked_marginal", values))
    assert figures[0].axes[0].images[0].get_clim() == (-0.5, 0.5)


def test_a_protein_of_equal_scores_is_drawn(tmp_path: Path) -> None:
    draw_heat_map(tmp_path / "x.svg", SingleScores("p", "MX", "masked_marginal", np.zeros((2, 20))))
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"--plot needs matplotlib .*pip install 'proteinlm\[plots\]'"):
        check_heat_map_file(tmp_path / "x.png")
