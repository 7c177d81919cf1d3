"""The report's tables in HTML: results, comparison with published numbers, all metrics, and provenance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from tape.metrics import Metric
from tape.report import charts, line_charts
from tape.report.cells import shown_interval
from tape.report.published import (
    Published,
    grouped_reasons,
    load_published,
    on_published_data,
    published_beside,
)
from tape.report.rows import (
    MOST_COLUMNS,
    Evaluated,
    MetricRow,
    ReportRow,
    best_of,
    columns_in,
    columns_of,
    comparison,
    described_by,
    measured,
    notes_of,
    shown_data,
    shown_spread,
    shown_value,
    task_heading,
    with_signs,
)


def scrolling(table: str, name: str) -> str:
    """Wrap a wide table in a frame that scrolls, also by keyboard."""
    return f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{table}</div>'


def result_table(rows: Sequence[ReportRow]) -> str:
    """The table of all rows with one column per model; of many models, a table per data set with one row per model."""
    columns = columns_of(rows)
    if len(columns) > MOST_COLUMNS:
        places = dict.fromkeys((row.task, row.data, row.simulated, row.split) for row in rows)
        return f'<p class="note">{_result_note(rows)}</p>' + "".join(
            _model_table([row for row in rows if (row.task, row.data, row.simulated, row.split) == place])
            for place in places
        )
    head = "".join(f'<th scope="col" class="n">{escape(column)}</th>' for column in columns)
    lines = []
    for row in rows:
        best = best_of(row)
        cells = "".join(_value_cell(row.values.get(column), best, column) for column in columns)
        lines.append(f"<tr>{first_cells(row, row.heading)}{cells}</tr>")
    caption = f"<caption>{_result_note(rows)}</caption>"
    head = f'<thead><tr><th scope="col">task, metric</th><th scope="col">data</th>{head}</tr></thead>'
    table = f'<table class="folding sortable">{caption}{head}<tbody>{"".join(lines)}</tbody></table>'
    return scrolling(table, "results")


def first_cells(row: MetricRow, heading: str) -> str:
    """The cells before those of the models: the task with the metric, and the data."""
    name = f"{escape(heading)}<br><small>{_shown_metric(row.metric)}</small>"
    place = f"{escape(row.data_label)}<br><small>{escape(row.split)}, {row.proteins:,} proteins</small>"
    return f'<th scope="row">{name}</th><td class="data">{place}</td>'


def _result_note(rows: Sequence[ReportRow]) -> str:
    best = (
        "The best value of each metric is bold; lower is better for losses, perplexities and errors (MAE, RMSE) only."
    )
    return " ".join([best, *(f"{escape(note)}." for note in notes_of(rows))])


def _model_table(rows: Sequence[ReportRow]) -> str:
    """The metrics of one data set and split, with one row per model."""
    first = rows[0]
    head = "".join(f'<th scope="col" class="n">{_shown_metric(row.metric)}</th>' for row in rows)
    lines = [
        f'<tr><th scope="row">{escape(column)}</th>'
        + "".join(_value_cell(row.values.get(column), best_of(row), with_signs(row.metric)) for row in rows)
        + "</tr>"
        for column in columns_of(rows)
    ]
    title = f"{escape(first.heading)}: {escape(first.data_label)}"
    place = f'<p class="place">{escape(first.split)}, {first.proteins:,} proteins</p>'
    head = f'<thead><tr><th scope="col">model</th>{head}</tr></thead>'
    kind = "folding sortable models" if len(lines) > 1 else "folding models"
    table = f'<table class="{kind}">{head}<tbody>{"".join(lines)}</tbody></table>'
    return f"<h3>{title}</h3>{place}" + scrolling(table, f"results of {first.heading}, {first.split}")


def _shown_metric(title: str) -> str:
    return escape(with_signs(title))


def _range(metric: Metric | None) -> str:
    """Interval of a single run, or standard deviation over seeds, as text."""
    if metric is None or metric.interval is None:
        return shown_spread(metric)
    return shown_interval(metric.interval, metric=metric.name)


def _value_cell(metric: Metric | None, best: float | None, column: str) -> str:
    """A cell with a value, by which the table is sorted, and its range; narrow screens show the column's name above."""
    text = shown_value(metric)
    if metric is not None and metric.value == best:
        text = f"<strong>{text}</strong>"
    spread = _range(metric)
    small = f"<br><small>{spread}</small>" if spread else ""
    value = "" if metric is None or math.isnan(metric.value) else f' data-value="{metric.value!r}"'
    return f'<td class="n" data-column="{escape(column)}"{value}>{text}{small}</td>'


# --- beside published numbers ---------------------------------------------------------------------------------------


def published_cards(groups: Sequence[Sequence[Evaluated]], colors: dict[str, int]) -> str:
    """A card for each group of evaluations on the data of published numbers.

    Numbers on other data are not shown beside published ones: only these and the reasons, collapsed.
    """
    known = [group for group in groups if published_beside(described_by(group))]
    same = [group for group in known if on_published_data(group[0].record)]
    cards = "".join(_card(group, colors) for group in same)
    return cards + _published_elsewhere([group for group in known if group not in same])


def _published_elsewhere(groups: Sequence[Sequence[Evaluated]]) -> str:
    """The published numbers of tasks that were evaluated on other data."""
    if not groups:
        return ""
    models = [model["name"] for model in load_published()["models"]]
    lines = []
    for task in dict.fromkeys(group[0].record.task for group in groups):
        record = next(group[0].record for group in groups if group[0].record.task == task)
        values = {entry.model: f"{entry.value:.2f}" for entry in published_beside(record)}
        title = f"{escape(task_heading(record))}<br><small>{escape(load_published()['tasks'][task]['title'])}</small>"
        cells = "".join(f'<td class="n" data-column="{escape(m)}">{values.get(m, "-")}</td>' for m in models)
        lines.append(f'<tr><th scope="row">{title}</th>{cells}</tr>')
    head = "".join(f'<th scope="col" class="n">{escape(model)}</th>' for model in models)
    table = (
        f'<table class="folding"><thead><tr><th scope="col">task, metric</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
    reasons = "".join(
        f"<h4>{escape(task_heading(record))}, {escape(record.split)}</h4>{_reasons(published_beside(record))}"
        for record in map(described_by, groups)
    )
    text = "Published numbers of these tasks are on other data than the results above and are not comparable with them"
    return f'<details class="wide"><summary>{text}</summary>{scrolling(table, "published numbers")}{reasons}</details>'


def _card(group: Sequence[Evaluated], colors: dict[str, int]) -> str:
    """Our numbers, the published numbers, and the reasons why they are not comparable."""
    record = described_by(group)
    published = published_beside(record)
    metrics = {column: comparison(runs) for column, runs in columns_in(group).items()}
    span = charts.common_span(list(metrics.values()), [entry.value for entry in published])
    lines = [_bar_line(c, m, _range(m), f"c{colors[c] % line_charts.COLORS}", span) for c, m in metrics.items()]
    lines.append('<tr class="rule"><th scope="rowgroup" colspan="3">published</th></tr>')
    for entry in published:
        lines.append(_bar_line(entry.model, Metric("", entry.value, 0, ""), "", "pub", span, digits=2))
    title = escape(f"{task_heading(record)}: {load_published()['tasks'][record.task]['title']}")
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
    columns = _with_seeds(group)
    names = dict.fromkeys(metric.name for e in group for metric in e.record.metrics)
    found = {name: {column: measured(runs, name) for column, runs in columns.items()} for name in names}
    title = f"{task_heading(record)}, {record.split}, {shown_data(record.data_name, record.is_simulated)}"
    table = _metrics_by_model(found, columns) if len(columns) > MOST_COLUMNS else _metrics_by_name(found, columns)
    return f"<details><summary>{escape(title)}</summary>{scrolling(table, title)}</details>"


def _defined_as(values: dict[str, Metric | None]) -> str:
    one = next(metric for metric in values.values() if metric is not None)
    return f"{escape(one.definition)} (n = {one.n:,})"


def _metrics_by_name(found: dict[str, dict[str, Metric | None]], columns: Iterable[str]) -> str:
    """A table with one row per metric and one column per model."""
    head = "".join(f'<th scope="col" class="n">{escape(column)}</th>' for column in columns)
    lines = []
    for name, values in found.items():
        cells = "".join(_value_cell(metric, None, column) for column, metric in values.items())
        text = f'<td class="definition">{_defined_as(values)}</td>'
        lines.append(f'<tr><th scope="row"><code>{escape(name)}</code></th>{cells}{text}</tr>')
    head = f'<thead><tr><th scope="col">metric</th>{head}<th scope="col">definition</th></tr></thead>'
    return f'<table class="sortable">{head}<tbody>{"".join(lines)}</tbody></table>'


def _metrics_by_model(found: dict[str, dict[str, Metric | None]], columns: Iterable[str]) -> str:
    """A table with one row per model and one column per metric, whose definition a pointer over its name shows."""
    head = "".join(
        f'<th scope="col" class="n" title="{_defined_as(values)}"><code>{escape(name)}</code></th>'
        for name, values in found.items()
    )
    lines = [
        f'<tr><th scope="row">{escape(column)}</th>'
        + "".join(_value_cell(values[column], None, name) for name, values in found.items())
        + "</tr>"
        for column in columns
    ]
    head = f'<thead><tr><th scope="col">model</th>{head}</tr></thead>'
    definitions = "".join(f"<dt><code>{escape(n)}</code></dt><dd>{_defined_as(v)}</dd>" for n, v in found.items())
    table = f'<table class="folding sortable models">{head}<tbody>{"".join(lines)}</tbody></table>'
    return f'{table}<dl class="note">{definitions}</dl>'


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
        name = f"{task_heading(r)}, {r.split}, {e.label}"
        date = f"{r.date[:10]} {r.date[11:16]}{r.date[19:]}".replace("+00:00", " UTC")
        rest = "".join(f"<td>{escape(text)}</td>" for text in (r.precision, r.code_version, date, e.run.name))
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{hashes}{rest}</tr>')
    names = ("evaluation", "model SHA-256", "data SHA-256", "precision", "version", "date", "run")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    sources = load_published()["sources"].values()
    cited = "; ".join(f'<a href="{escape(s["url"])}">{escape(s["title"])}</a>' for s in sources)
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    shown = any(published_beside(e.record) for e in evaluations)
    return scrolling(table, "origin") + (f'<p class="note">Published numbers: {cited}.</p>' if shown else "")


def _hash_cell(value: str | None) -> str:
    return "<td>-</td>" if value is None else f'<td><code title="{escape(value)}">{escape(value[:12])}</code></td>'
