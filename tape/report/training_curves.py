"""The training curves of a run as a picture in its directory, ``curves.svg``, which every browser shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TypeGuard

from tape.io.json_files import iterate_json_lines
from tape.io.writing import write_text
from tape.report.line_charts import HEIGHT, LARGEST_SHOWN, WIDTH, Series, line_chart, smoothed, style_class, thinned

CURVES_NAME = "curves.svg"
_TRAINING, _VALIDATION = 2, 1  # color numbers, as in the report
_MOST_POINTS = 2000
_MOST_PANELS = 4
_LEGEND_HEIGHT = 24
_GAP = 20  # between charts, whose last tick reaches beyond them
_STYLE = """
svg { overflow: visible; background: #fff; }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
text { fill: #57606a; font-size: 11px; } .grid { stroke: #d5dae1; fill: none; } .axis { stroke: #57606a; fill: none; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .faint { stroke-width: 1; opacity: .35; }
.c1 { stroke: #c91b00; } .c2 { stroke: #113b67; } .dot.c1 { fill: #c91b00; } .dot.c2 { fill: #113b67; }
@media (prefers-color-scheme: dark) { svg { background: #14171b; } text { fill: #a3acb8; } .grid { stroke: #353c45; }
.axis { stroke: #a3acb8; } .c1 { stroke: #f5e61f; } .c2 { stroke: #94c7ff; } .dot.c1 { fill: #f5e61f; }
.dot.c2 { fill: #94c7ff; } }
"""


@dataclass(frozen=True)
class Panel:
    """One chart of the picture: its lines and the names of its axes."""

    series: Sequence[Series]
    x_label: str
    y_label: str
    whole_x: bool = False


def draw_pretraining(metrics: Path, iterations: int, picture: Path) -> bool:
    """Draw loss, learning rate and throughput of a pretraining run by iteration.

    Args:
        metrics: its ``metrics.jsonl``, which is read record by record.
        iterations: number of its last iteration; longer runs are drawn as means over some iterations.
        picture: file to write.

    Returns:
        Whether there was something to draw.

    Raises:
        CheckpointError: ``metrics`` is damaged.
    """
    width = max(1, iterations // _MOST_POINTS)
    training = {name: _Means(width) for name in ("lm_loss", "learning_rate", "tokens_per_second")}
    validation: list[tuple[float, float]] = []
    for record in iterate_json_lines(metrics, integers=["iteration"]):
        for name, means in training.items():
            means.add(record["iteration"], record.get(name))
        if record.get("split") == "valid" and _is_drawn(record.get("validation_loss")):
            validation.append((record["iteration"], float(record["validation_loss"])))
    loss = [*_noisy(training["lm_loss"].points()), Series("validation", validation, _VALIDATION, dots=True)]
    rate = [Series("training, smoothed", thinned(training["learning_rate"].points()), _TRAINING)]
    speed = _noisy(training["tokens_per_second"].points())
    panels = [
        Panel(loss, "iteration", "masked-residue loss (nats)"),
        Panel(rate, "iteration", "learning rate"),
        Panel(speed, "iteration", "tokens per second"),
    ]
    return _write(picture, panels)


def _noisy(points: Sequence[tuple[float, float]]) -> list[Series]:
    """A thin line of the points, and a thick one of their running mean."""
    mean = smoothed(points, max(1, len(points) // 40))
    return [
        Series("training", thinned(points), _TRAINING, faint=True),
        Series("training, smoothed", thinned(mean), _TRAINING),
    ]


def draw_finetuning(history: Sequence[Mapping[str, Any]], picture: Path) -> bool:
    """Draw the loss and the other metrics of a finetuning run by epoch.

    Args:
        history: the records of its ``metrics.jsonl``.
        picture: file to write.

    Returns:
        Whether there was something to draw.
    """
    names: dict[str, None] = {"loss": None}  # first, and the others in their order
    for record in history:
        for group in ("train", "valid"):
            names.update(dict.fromkeys(record.get(group) or {}))
    panels = []
    for name in list(names)[:_MOST_PANELS]:
        series = [
            Series(title, _by_epoch(history, group, name), color, dots=True)
            for title, group, color in (("training", "train", _TRAINING), ("validation", "valid", _VALIDATION))
        ]
        panels.append(Panel(series, "epoch", name.replace("_", " "), whole_x=True))
    return _write(picture, panels)


def _by_epoch(history: Iterable[Mapping[str, Any]], group: str, name: str) -> list[tuple[float, float]]:
    """(epoch counted from 1, value) of the epochs that have a finite one."""
    values = ((record["epoch"] + 1, (record.get(group) or {}).get(name)) for record in history)
    return [(epoch, value) for epoch, value in values if _is_drawn(value)]


def _is_drawn(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and abs(value) < LARGEST_SHOWN


class _Means:
    """The means of a value over ``width`` iterations at a time, so that a long run needs little memory."""

    def __init__(self, width: int) -> None:
        self._width, self._points = width, list[tuple[float, float]]()
        self._sum, self._count, self._last = 0.0, 0, 0

    def add(self, iteration: int, value: Any) -> None:
        """Count the value of an iteration; what is no finite number, as after a skipped step, is left out."""
        if not _is_drawn(value):
            return
        self._sum, self._count, self._last = self._sum + value, self._count + 1, iteration
        if self._count == self._width:
            self._close()

    def points(self) -> list[tuple[float, float]]:
        """(last iteration, mean) of the intervals."""
        if self._count:
            self._close()
        return self._points

    def _close(self) -> None:
        self._points.append((self._last, self._sum / self._count))
        self._sum, self._count = 0.0, 0


def _write(picture: Path, panels: Sequence[Panel]) -> bool:
    """Write the panels with points side by side, under a legend, as a file of its own."""
    charts = []
    for panel in panels:
        title = f"{panel.y_label} by {panel.x_label}"
        chart = line_chart(panel.series, panel.x_label, panel.y_label, title, panel.whole_x)
        if chart:
            charts.append(chart)
    if not charts:
        return False
    body = [f"<style>{_STYLE}</style>", *_legend(panels)]
    for number, chart in enumerate(charts):
        place = f'x="{number * (WIDTH + _GAP)}" y="{_LEGEND_HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        body.append(chart.replace("<svg ", f'<svg overflow="visible" {place} ', 1))
    width, height = (WIDTH + _GAP) * len(charts), HEIGHT + _LEGEND_HEIGHT
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    write_text(picture, f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(body)}</svg>\n')
    return True


def _legend(panels: Sequence[Panel]) -> list[str]:
    """The names of the lines that are drawn, each beside a piece of its line."""
    shown = {series.name: series for panel in panels for series in panel.series if series.points}
    parts, x = [], 20
    for name, series in shown.items():
        parts.append(
            f'<path class="line {style_class(series.style)}{" faint" if series.faint else ""}" d="M{x} 14h16"/>'
        )
        parts.append(f'<text x="{x + 22}" y="18">{escape(name)}</text>')
        x += 40 + 7 * len(name)
    return parts
