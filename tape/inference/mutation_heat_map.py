"""Heat map of the scores of all single substitutions of a protein: residues by positions, wild type marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import ConfigError
from tape.io.writing import atomic_write

from .all_singles import AMINO_ACIDS, SingleScores
from .contact_maps import figure_class, short_title

SUFFIXES = (".png", ".svg")
# Grouped by property, so that similar substitutions are neighbors: aliphatic, aromatic, small and polar, charged
ROWS = "GAVLIMCPFWYSTNQHKRDE"
_RESIDUES_PER_PANEL = 100
_MOST_PANELS = 40  # a panel of longer proteins has more residues
_INCHES_PER_RESIDUE, _PANEL_HEIGHT = 0.115, 2.9
_SHOWN_QUANTILE = 0.99  # of the absolute scores; stronger ones have the strongest color


def check_heat_map_file(path: Path) -> None:
    """Check that a heat map can be drawn into a file of this name.

    Raises:
        ConfigError: the name has another suffix, or matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--plot {path}: give a name that ends in {' or '.join(SUFFIXES)}")
    figure_class()


def draw_heat_map(path: Path, scores: SingleScores, first_residue: int = 1) -> None:
    """Draw the scores of a protein, in panels of 100 residues below each other.

    Args:
        path: .png or .svg to write.
        scores: the scores.
        first_residue: number of the first residue.

    Raises:
        ConfigError: see :func:`check_heat_map_file`.
    """
    check_heat_map_file(path)
    length = len(scores.sequence)
    width = max(min(_RESIDUES_PER_PANEL, length), -(-length // _MOST_PANELS))
    panels = -(-length // width)
    size = (max(5.0, 1.6 + _INCHES_PER_RESIDUE * min(width, _RESIDUES_PER_PANEL)), 0.9 + _PANEL_HEIGHT * panels)
    figure = figure_class()(figsize=size, layout="constrained")
    known = np.array([residue in ROWS for residue in scores.sequence])  # of X, all substitutions are likely
    limit = float(np.quantile(np.abs(scores.values[known] if known.any() else scores.values), _SHOWN_QUANTILE)) or 1.0
    all_axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    for number, axes in enumerate(all_axes):
        image = _draw_panel(axes, scores, number * width, width, first_residue, limit)
    axes.set_xlabel("position")
    figure.suptitle(f"{short_title(scores.protein)}\nsingle substitutions (dots: wild type)", fontsize=10)
    bar = figure.colorbar(image, ax=all_axes[0], extend="both", aspect=25)  # beside the title, where readers begin
    bar.set_label(f"{scores.method.replace('_', ' ')}\nln p(substituted) / p(wild type)", fontsize=9)
    with atomic_write(path) as stream:
        figure.savefig(stream, format=path.suffix[1:], dpi=120)


def _draw_panel(axes: Any, scores: SingleScores, start: int, width: int, first_residue: int, limit: float) -> Any:
    """Draw the residues from ``start`` (from 0); a last panel has the scale of the others and is empty at its end."""
    residues = scores.sequence[start : start + width]
    table = scores.values[start : start + width, [AMINO_ACIDS.index(row) for row in ROWS]].T
    first = start + first_residue
    edges = (first - 0.5, first + len(residues) - 0.5, len(ROWS) - 0.5, -0.5)
    image = axes.imshow(
        table, cmap="RdBu", vmin=-limit, vmax=limit, extent=edges, aspect="auto", interpolation="nearest"
    )
    wild_type = [(first + place, ROWS.index(residue)) for place, residue in enumerate(residues) if residue in ROWS]
    if wild_type:
        axes.plot(*zip(*wild_type, strict=True), "k.", markersize=3)
    axes.set_xlim(first - 0.5, first + width - 0.5)
    axes.set_xticks(_positions(first, len(residues), width))
    axes.set_yticks(range(len(ROWS)), list(ROWS), fontsize=6, family="monospace")
    axes.set_ylabel("substituted by")
    axes.spines[:].set_visible(False)
    return image


def _positions(first: int, length: int, width: int) -> list[int]:
    """The positions of a panel's residues with a number below them: the first, round ones, and the last."""
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if width <= 10 * step), 1000)
    last = first + length - 1
    inner = [position for position in range(first + 1, last) if position % step == 0]
    shown = [position for position in inner if min(position - first, last - position) >= step / 2]
    return [first, *shown, last] if last - first >= step / 2 else [first]
