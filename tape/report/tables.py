"""The report's tables in HTML: results, comparison with published numbers, all metrics, and provenance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tape.metrics import Metric
from tape.report import charts
from tape.report.published import Published, grouped_reasons, load_published, published_beside
from tape.report.rows import (
    SEEDS_NOTE,
    Evaluated,
    ReportRow,
    best_of,
    columns_in,
    columns_of,
    comparison,
    described_by,
    has_means,
    measured,
    shown_data,
    shown_spread,
    shown_task,
    shown_value,
)


def scrolling(table: str, name: str) -> str:
    """Wrap a wide table in a frame that scrolls, also by keyboard."""
    return f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{table}</div>'


def result_table(rows: Sequence[ReportRow]) -> str:
    """The table of all rows, with one column per model."""
    columns = columns_of(rows)
    head = "".join(f'<th scope="col" class="n">{escape(column)}</th>' for column in columns)
    lines = []
    for row in rows:
        best = best_of(row)
        place = f"{escape(row.data_label)}<br><small>{escape(row.split)}, {row.proteins:,} proteins</small>"
        cells = "".join(_value_cell(row.values.get(column), best, column) for column in columns)
        metric = escape(row.metric.replace(">=", "\N{GREATER-THAN OR EQUAL TO}"))
        name = f"{escape(shown_task(row.task))}<br><small>{metric}</small>"
        lines.append(f'<tr><th scope="row">{name}</th><td class="data">{place}</td>{cells}</tr>')
    best_note = "The best value of each row is bold; lower is better for a perplexity or a loss only."
    note = f" {SEEDS_NOTE}." if has_means(rows) else ""
    caption = f"<caption>{best_note}{note}</caption>"
    head = f'<thead><tr><th scope="col">task, metric</th><th scope="col">data</th>{head}</tr></thead>'
    table = f'<table class="folding">{caption}{head}<tbody>{"".join(lines)}</tbody></table>'
    return scrolling(table, "results")


def _range(metric: Metric | None) -> str:
    """Interval of a single run, or standard deviation over seeds, as text."""
    if metric is None or metric.interval is None:
        return shown_spread(metric)
    return f"[{metric.interval[0]:.3f}, {metric.interval[1]:.3f}]"


def _value_cell(metric: Metric | None, best: float | None, column: str) -> str:
    """A cell with a value and its range; narrow screens show the column's name above it."""
    text = shown_value(metric)
    if metric is not None and metric.value == best:
        text = f"<strong>{text}</strong>"
    spread = _range(metric)
    small = f"<br><small>{spread}</small>" if spread else ""
    return f'<td class="n" data-column="{escape(column)}">{text}{small}</td>'


# --- beside published numbers ---------------------------------------------------------------------------------------


def published_cards(groups: Sequence[Sequence[Evaluated]], colors: dict[str, int]) -> str:
    """A card for each group of evaluations whose task has published numbers."""
    return "".join(_card(group, colors) for group in groups)


def _card(group: Sequence[Evaluated], colors: dict[str, int]) -> str:
    """Our numbers, the published numbers, and the reasons why they are not comparable."""
    record = described_by(group)
    published = published_beside(record)
    if not published:
        return ""
    metrics = {column: comparison(runs) for column, runs in columns_in(group).items()}
    span = charts.common_span(list(metrics.values()), [entry.value for entry in published])
    lines = [_bar_line(c, m, _range(m), f"c{colors[c]}", span) for c, m in metrics.items()]
    lines.append('<tr class="rule"><th scope="rowgroup" colspan="3">published</th></tr>')
    for entry in published:
        lines.append(_bar_line(entry.model, Metric("", entry.value, 0, ""), "", "pub", span, digits=2))
    title = escape(f"{shown_task(record.task)}: {load_published()['tasks'][record.task]['title']}")
    place = f"{escape(shown_data(record.data_name, record.is_simulated))}, {escape(record.split)}"
    head = "".join(f'<th scope="col">{name}</th>' for name in ("model", "bar", "value"))
    table = (
        f'<table class="bars"><caption class="hidden">{title}</caption><thead class="hidden"><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
    ours = next((metric for metric in metrics.values() if metric is not None), None)
    definition = "" if ours is None else f'<p class="note">Ours: {escape(ours.definition)}.</p>'
    heading = f'<h3>{title}</h3><p class="place">{place}</p>'
    return f'<article class="card">{heading}{table}{definition}{_reasons(published)}</article>'


def _bar_line(
    name: str, metric: Metric | None, small: str, color: str, span: tuple[float, float], digits: int = 3
) -> str:
    if metric is None or math.isnan(metric.value):
        return ""
    picture = charts.bar(metric.value, charts.whiskers(metric), span, color)
    text = f"{metric.value:.{digits}f}" + (f"<br><small>{small}</small>" if small else "")
    return f'<tr><th scope="row">{escape(name)}</th><td class="picture">{picture}</td><td class="n">{text}</td></tr>'


def _reasons(published: Sequence[Published]) -> str:
    items = [
        f"<li><b>{escape(', '.join(models))}:</b> {escape('; '.join(reasons))}</li>"
        for models, reasons in grouped_reasons(published)
    ]
    return f'<h4>Not comparable because</h4><ul class="reasons">{"".join(items)}</ul>' if items else ""


# --- every metric, and the origin -----------------------------------------------------------------------------------


def all_metrics(groups: Sequence[Sequence[Evaluated]]) -> str:
    """Tables with every metric of every group, collapsed by default."""
    return "".join(_details(group) for group in groups)


def _details(group: Sequence[Evaluated]) -> str:
    record = group[0].record
    names = dict.fromkeys(metric.name for e in group for metric in e.record.metrics)
    columns = _with_seeds(group)
    head = "".join(f'<th scope="col" class="n">{escape(column)}</th>' for column in columns)
    lines = []
    for name in names:
        found = {column: measured(runs, name) for column, runs in columns.items()}
        cells = "".join(_value_cell(metric, None, column) for column, metric in found.items())
        one = next(metric for metric in found.values() if metric is not None)
        text = f'<td class="definition">{escape(one.definition)} (n = {one.n:,})</td>'
        lines.append(f'<tr><th scope="row"><code>{escape(name)}</code></th>{cells}{text}</tr>')
    head = f'<thead><tr><th scope="col">metric</th>{head}<th scope="col">definition</th></tr></thead>'
    title = f"{shown_task(record.task)}, {record.split}, {shown_data(record.data_name, record.is_simulated)}"
    table = scrolling(f"<table>{head}<tbody>{''.join(lines)}</tbody></table>", title)
    return f"<details><summary>{escape(title)}</summary>{table}</details>"


def _with_seeds(group: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """The columns of a group, each mean over seeds followed by its runs."""
    columns = {}
    for column, runs in columns_in(group).items():
        columns[column] = runs
        if len(runs) > 1:
            columns |= {run.label: [run] for run in runs}
    return columns


def origin(evaluations: Sequence[Evaluated]) -> str:
    """Hashes, versions and dates of the evaluations, and the sources of the published numbers."""
    lines = []
    for e in evaluations:
        r = e.record
        hashes = "".join(_hash_cell(value) for value in (r.model_sha256, r.data_sha256))
        name = f"{shown_task(r.task)}, {r.split}, {e.label}"
        rest = "".join(f"<td>{escape(text)}</td>" for text in (r.precision, r.code_version, r.date, e.run.name))
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{hashes}{rest}</tr>')
    names = ("evaluation", "model SHA-256", "data SHA-256", "precision", "version", "date", "run")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    sources = load_published()["sources"].values()
    cited = "; ".join(f'<a href="{escape(s["url"])}">{escape(s["title"])}</a>' for s in sources)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return scrolling(table, "origin") + f'<p class="note">Published numbers: {cited}.</p>'


def _hash_cell(value: str | None) -> str:
    return "<td>-</td>" if value is None else f'<td><code title="{escape(value)}">{escape(value[:12])}</code></td>'
