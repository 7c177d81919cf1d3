"""The report's pictures: loss curves and contact maps. Needs matplotlib (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws to files; no screen is needed

import matplotlib.pyplot as plt
import numpy as np

from tape.lmdb_store import restricted_loads
from tape.metrics.contacts import MINIMUM_SEPARATION, contact_scores

# Okabe and Ito's palette, told apart with colour-blind eyes too.
COLOURS = {"one-hot": "#999999", "random weights": "#E69F00", "pretrained": "#0072B2"}
_OTHERS = ("#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "figure.dpi": 130}

History = tuple[str, str, bool, list[dict[str, Any]]]


def draw_pretraining(file: Path, records: Sequence[dict[str, Any]]) -> None:
    """Training loss an iteration (thin: as it was; thick: running mean) and validation loss."""
    train = [record for record in records if record.get("lm_loss") is not None]
    valid = [record for record in records if record.get("validation_loss") is not None]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
        iteration = [record["iteration"] for record in train]
        loss = np.array([record["lm_loss"] for record in train], dtype=float)
        axes.plot(iteration, loss, color="#0072B2", alpha=0.25, linewidth=0.8)
        window = max(1, len(loss) // 40)
        if len(loss) >= window:
            smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
            axes.plot(iteration[window - 1 :], smooth, color="#0072B2", label=f"training, mean of {window} iterations")
        if valid:
            axes.plot(
                [record["iteration"] for record in valid],
                [record["validation_loss"] for record in valid],
                "o-",
                color="#D55E00",
                markersize=4,
                label="validation",
            )
        axes.set(xlabel="iteration", ylabel="masked-residue loss (nats)", title="Pretraining")
        axes.legend(frameon=False)
        figure.savefig(file)
        plt.close(figure)


def draw_finetuning(file: Path, histories: Sequence[History]) -> None:
    """Validation loss by epoch, one panel a task, one line a model."""
    tasks = list(dict.fromkeys(task for task, *_ in histories))
    with plt.rc_context(_STYLE):
        figure, panels = plt.subplots(
            1, len(tasks), figsize=(2.6 * len(tasks), 2.9), squeeze=False, layout="constrained"
        )
        for axes, task in zip(panels[0], tasks, strict=True):
            for index, (_, column, simulated, records) in enumerate(h for h in histories if h[0] == task):
                points = [(r["epoch"] + 1, r["valid"]["loss"]) for r in records if r.get("valid")]
                if points:
                    axes.plot(
                        *zip(*points, strict=True), "o-", markersize=3, label=column, color=_colour(column, index)
                    )
                title = task.replace("_", " ") + ("\n(simulated)" if simulated else "\n(real)")
                axes.set(title=title, xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0][0].set_ylabel("validation loss")
        panels[0][0].legend(frameon=False, fontsize=8)
        figure.savefig(file)
        plt.close(figure)


def draw_contact_maps(file: Path, results: dict[str, Path], data: str) -> None:
    """One protein of the split: true contacts below the diagonal, each model's L best pairs above it.

    The protein is the one of median length, so that nobody chose it for its looks.
    """
    predictions = {column: _load(path) for column, path in results.items()}
    first = next(iter(predictions.values()))
    chosen = sorted(range(len(first)), key=lambda index: first[index]["target"].shape[0])[len(first) // 2]
    with plt.rc_context(_STYLE):
        figure, panels = plt.subplots(
            1, len(predictions), figsize=(3.3 * len(predictions), 4.2), squeeze=False, layout="constrained"
        )
        for index, (axes, (column, results_of)) in enumerate(zip(panels[0], predictions.items(), strict=True)):
            _draw_map(axes, results_of[chosen], column, _colour(column, index))
        figure.supxlabel(
            f"Residues of {first[chosen]['id']}, {data}. Below the diagonal: true contacts (C-alpha < 8 Å).\n"
            "Above: the L pairs with the highest predicted score (filled: right, open: wrong).",
            fontsize=8,
        )
        figure.savefig(file)
        plt.close(figure)


def _draw_map(axes: Any, result: dict[str, Any], column: str, colour: str) -> None:
    target = np.asarray(result["target"])
    scores = contact_scores(np.asarray(result["prediction"], dtype=np.float32))
    length = target.shape[0]
    true = np.argwhere(np.tril(target == 1))
    axes.scatter(true[:, 1], true[:, 0], s=4, color="#333333", marker="s", linewidths=0)
    rows, columns = np.triu_indices(length, MINIMUM_SEPARATION)
    counted = target[rows, columns] >= 0
    rows, columns = rows[counted], columns[counted]
    best = np.argsort(-scores[rows, columns], kind="stable")[:length]
    right = target[rows[best], columns[best]] == 1
    for chosen, face in ((best[right], colour), (best[~right], "none")):
        axes.scatter(columns[chosen], rows[chosen], s=9, facecolors=face, edgecolors=colour, linewidths=0.6)
    axes.plot([0, length], [0, length], color="#bbbbbb", linewidth=0.6)
    axes.set(xlim=(-1, length), ylim=(length, -1), aspect="equal", title=f"{column}: P@L {right.mean():.2f}")


def _load(path: Path) -> list[dict[str, Any]]:
    """The list of predictions of a results file; read as untrusted data."""
    _, results = restricted_loads(path.read_bytes(), str(path))
    return list(results)


def _colour(column: str, index: int) -> str:
    return COLOURS.get(column, _OTHERS[index % len(_OTHERS)])
