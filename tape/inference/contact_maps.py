"""Files of predicted contacts of a protein: the map (.npz), a table of pairs (.csv) and a picture (.png).

- ``.npz``: ``probabilities`` (L, L) float32, ``sequence`` and ``id``;
- ``.csv``: columns ``i``, ``j``, ``probability``, ``separation`` for the pairs i < j of a separation j - i of at least
  6, most probable first; residues are numbered from 1;
- ``.png``: the probabilities as colors, and the L most probable pairs as dots.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tape.datasets.contacts import MINIMUM_SEPARATION
from tape.errors import ConfigError, import_extra
from tape.io.writing import atomic_write

from .predict import Prediction

_INSTALL = "pip install 'proteinlm[plots]'"
_LONGEST_NAME = 80
_LONGEST_TITLE = 40  # characters, for which the pictures are wide enough
_DECIMALS = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContactMapFiles:
    """Writer of the files of contact maps.

    Attributes:
        folder: the folder of the files.
        pairs: whether to write tables of pairs.
        plot: whether to draw pictures; None: if matplotlib is installed.

    Raises:
        ConfigError: ``plot`` is True and matplotlib is not installed.
    """

    folder: Path
    pairs: bool = False
    plot: bool | None = None

    def __post_init__(self) -> None:
        if self.plot:
            figure_class()  # raises now, not after the computation

    def announce(self) -> None:
        """Log that pictures are left out because matplotlib is missing, if they are."""
        if self.plot is None and not has_matplotlib():
            logger.warning("contact maps are written without pictures, which need matplotlib: %s", _INSTALL)

    def write(self, prediction: Prediction) -> dict[str, Any]:
        """Write the files of a protein.

        Returns:
            ``contacts``, the number of pairs with a probability above 0.5, and ``map``, the path of the .npz from the
            parent of the folder.
        """
        chances = prediction.values
        readable_id = re.sub(r"[^A-Za-z0-9._-]+", "_", prediction.identifier)[:_LONGEST_NAME]
        path = self.folder / f"{prediction.index:06d}_{readable_id}"
        with atomic_write(path.with_name(f"{path.name}.npz")) as stream:
            np.savez_compressed(stream, probabilities=chances, sequence=prediction.sequence, id=prediction.identifier)
        if self.pairs:
            with atomic_write(path.with_name(f"{path.name}.csv"), "w") as stream:
                stream.write(pairs_table(chances))
        if self.plot or (self.plot is None and has_matplotlib()):
            with atomic_write(path.with_name(f"{path.name}.png")) as stream:
                draw_map(stream, chances, prediction.identifier)
        return {"contacts": count_contacts(chances), "map": f"{self.folder.name}/{path.name}.npz"}


def count_contacts(chances: np.ndarray) -> int:
    """Number of pairs with a probability above 0.5 at a separation of at least 6, in a map (L, L)."""
    return int((np.triu(chances, MINIMUM_SEPARATION) > 0.5).sum())


def pairs_table(chances: np.ndarray) -> str:
    """CSV of the pairs of a map (L, L), see the docstring of this module."""
    first, second = np.triu_indices(len(chances), k=MINIMUM_SEPARATION)
    values = chances[first, second]
    order = np.argsort(-values, kind="stable")  # equal probabilities in the order of the residues
    rows = zip(first[order] + 1, second[order] + 1, values[order], strict=True)
    lines = [f"{i},{j},{value:.{_DECIMALS}f},{j - i}\n" for i, j, value in rows]
    return "".join(["i,j,probability,separation\n", *lines])


def draw_map(stream: Any, chances: np.ndarray, title: str) -> None:
    """Draw a .png of contact probabilities (L, L), with residues numbered from 1.

    Pairs less than 6 apart are blank. The colors end at the highest probability, since those of weak models are all
    low. Below the diagonal, dots mark the L most probable pairs, the predicted contacts of P@L.
    """
    figure = figure_class()(figsize=(5.6, 4.9), layout="constrained")
    axes = figure.add_subplot()
    length = len(chances)
    first, second = np.triu_indices(length, k=MINIMUM_SEPARATION)
    shown = np.full((length, length), np.nan)
    shown[first, second] = chances[first, second]
    edges = (0.5, length + 0.5, length + 0.5, 0.5)
    highest = float(chances[first, second].max(initial=0.0)) or 1.0
    image = axes.imshow(shown, vmin=0, vmax=highest, cmap="Blues", extent=edges, interpolation="nearest")
    best = np.argsort(-chances[first, second], kind="stable")[:length]
    size = min(12.0, max(1.0, 1500 / length**1.3))
    axes.scatter(first[best] + 1, second[best] + 1, s=size, color="tab:orange", linewidths=0)
    axes.plot([0.5, length + 0.5], [0.5, length + 0.5], color="0.8", linewidth=0.6)
    axes.set(xlabel="residue", ylabel="residue", title=short_title(title))
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, label="probability of contact (< 8 Å)", shrink=0.85)
    if len(best):
        figure.text(0.01, 0.005, f"dots: the {len(best)} most probable pairs", fontsize=7, color="tab:orange")
    figure.savefig(stream, format="png", dpi=120)


def short_title(name: str) -> str:
    """The name of a protein as the title of a picture: the end of a long one is left out."""
    return name if len(name) <= _LONGEST_TITLE else f"{name[: _LONGEST_TITLE - 1]}\N{HORIZONTAL ELLIPSIS}"


def has_matplotlib() -> bool:
    """Whether matplotlib can be imported."""
    try:
        figure_class()
    except ConfigError:
        return False
    return True


def figure_class() -> Any:
    """matplotlib's Figure class, which needs no display and, unlike pyplot, does not keep figures.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    return import_extra("matplotlib.figure", "--plot needs matplotlib", "plots").Figure
