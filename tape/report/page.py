"""The report as one self-contained HTML page with style, charts and numbers, which opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tape.report.differences import Differences
from tape.report.figures import curves, predictions
from tape.report.layouts import LayoutLosses
from tape.report.leakage import leakage_table
from tape.report.line_charts import COLORS
from tape.report.rows import COLUMNS, Evaluated, groups_of, make_rows, resampled
from tape.report.tables import all_metrics, origin, published_cards, result_table

STYLE = Path(__file__).with_name("report.css")
SCRIPT = Path(__file__).with_name("report.js")  # sorting of tables; the page is complete without it


def page(
    evaluations: Sequence[Evaluated],
    differences: Differences,
    pretraining: Path | None,
    layouts: LayoutLosses | None = None,
) -> str:
    """The HTML page of the evaluations.

    Args:
        evaluations: what to show.
        differences: their paired differences to random weights.
        pretraining: directory with pretraining's metrics.jsonl.
        layouts: losses of pretraining by parallel layout.
    """
    rows = make_rows(evaluations)
    groups = groups_of(evaluations)
    colors = _colors([e.column for e in evaluations])
    sections = [
        ("results", "Results", result_table(rows)),
        ("differences", "Minus random weights", differences.html()),
        ("published", "Published numbers", published_cards(groups, colors)),
        ("leakage", "By identity to training data", leakage_table(evaluations)),
        ("curves", "Training", curves(evaluations, pretraining, colors)),
        ("layouts", "Parallel layouts", "" if layouts is None else layouts.html()),
        ("predictions", "Predictions", predictions(groups, colors)),
        ("metrics", "Every metric", all_metrics(groups)),
        ("origin", "Where the numbers come from", origin(evaluations)),
    ]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, body in sections if body)
    body = "".join(f'<section id="{n}"><h2>{t}</h2>{b}</section>' for n, t, b in sections if b)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>ProteinLM: results</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body><header><h1>ProteinLM: results</h1>{_summary(evaluations)}<nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n<script>\n{SCRIPT.read_text(encoding='utf-8')}</script></body></html>\n"
    )


def _colors(columns: Sequence[str]) -> dict[str, int]:
    """Style number of each column: fixed for the known columns, the others first get the remaining colors."""
    known = list(COLUMNS.values())
    others = dict.fromkeys(column for column in columns if column not in known)
    used = {index for index, column in enumerate(known) if column in columns}
    free = [number for number in (*range(len(known), COLORS), *range(1, len(known)), 0) if number not in used]
    styles = [*free, *range(COLORS, COLORS + len(others))]
    return {**{column: known.index(column) for column in known}, **dict(zip(others, styles, strict=False))}


def _summary(evaluations: Sequence[Evaluated]) -> str:
    dates = sorted(e.record.date[:10] for e in evaluations)
    versions = ", ".join(sorted({e.record.code_version for e in evaluations}))
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    number = f"{len(evaluations)} evaluation{'s' if len(evaluations) > 1 else ''}"
    text = f"{number} of {escape(span)}, version {escape(versions)}. "
    if any(metric.interval for e in evaluations for metric in e.record.metrics):
        text += "Brackets and whiskers are 95&#8239;% bootstrap intervals over " + escape(resampled(evaluations)) + ". "
    if any(e.seed is not None for e in evaluations):
        text += "Runs that differ only in their seed are shown as their mean, with whiskers of one standard deviation. "
    if any(e.record.is_simulated for e in evaluations):
        text += "<strong>Simulated</strong> data show that the software works; they are no evidence about proteins. "
    return f'<p class="lead">{text}</p>'
