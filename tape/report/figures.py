"""The report's figures with captions: training curves, and predictions by task type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import DataError, quoted
from tape.evaluation.class_names import class_names
from tape.io.json_files import read_json_lines
from tape.metrics import TASK_TYPE_METRICS
from tape.metrics.classes import measure_tokens
from tape.metrics.confusion import Confusion, confusion_of
from tape.metrics.contacts import NAMES, measure_contacts
from tape.report import charts, line_charts
from tape.report.predictions import load_results, task_type_of
from tape.report.rows import Evaluated, columns_in, several_columns, shown_data, task_heading, task_words
from tape.report.strip_charts import MOST_DOTS, Strip, strip_chart
from tape.tasks import TaskType

_SHOWN_PAIRS = 12  # of the classes that were confused most often


def _figure(chart: str, caption: str) -> str:
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>" if chart else ""


def _legend(names: dict[str, int]) -> str:
    items = "".join(f"<span>{line_charts.key(style)}{escape(name)}</span>" for name, style in names.items())
    return f'<p class="legend">{items}</p>'


# --- training -------------------------------------------------------------------------------------------------------


def curves(evaluations: Sequence[Evaluated], pretraining: Path | None, colors: dict[str, int]) -> str:
    """Figures of the pretraining loss and of each task's validation loss by epoch."""
    figures = [] if pretraining is None else [_pretraining(pretraining / "metrics.jsonl")]
    tasks: dict[tuple[str, str, str], list[line_charts.Series]] = {}
    for run, e in {e.run: e for e in evaluations}.items():
        points = _validation_losses(run)
        if points:
            series = line_charts.Series(e.column, points, colors[e.column], dots=True)
            data = shown_data(e.record.data_name, e.record.is_simulated)
            tasks.setdefault((e.record.task, task_words(e.record), data), []).append(series)
    for (_, task, data), shown in tasks.items():
        title = f"Validation loss of {task} ({data}) by epoch"
        chart = line_charts.line_chart(shown, "epoch", "validation loss", title, whole_x=True, decades=True)
        figures.append(_figure(chart, f"<b>{escape(task)}</b>: {escape(data)}"))
    seen = {one.name for shown in tasks.values() for one in shown}
    legend = _legend({column: color for column, color in colors.items() if column in seen}) if seen else ""
    return f'{legend}<div class="panels">{"".join(figures)}</div>' if figures else ""


def _validation_losses(run: Path) -> list[tuple[float, float]]:
    """(epoch counted from 1, validation loss) of a run, for the epochs that have one in its history."""
    file = run / "metrics.jsonl"
    records = read_json_lines(file, integers=["epoch"]) if file.is_file() else []
    losses = [(record["epoch"] + 1, _validation_loss(file, record)) for record in records]
    return [(epoch, loss) for epoch, loss in losses if loss is not None]


def _validation_loss(file: Path, record: dict[str, Any]) -> float | None:
    """The loss of an epoch's record; None if the epoch was not validated."""
    valid = record.get("valid") or {}
    if not isinstance(valid, dict):
        raise DataError(f"{file}: 'valid' of epoch {record['epoch']} must be an object, not {quoted(valid)}")
    loss = valid.get("loss")
    return None if loss is None else _number(file, f"loss of epoch {record['epoch']}", loss)


def _number(file: Path, name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not abs(value) < line_charts.LARGEST_SHOWN:
        raise DataError(f"{file}: the {name} must be a number, not {quoted(value)}")
    return float(value)


def _pretraining(file: Path) -> str:
    records = read_json_lines(file, integers=["iteration"])
    train, valid = (
        [
            (r["iteration"], _number(file, f"{name} of iteration {r['iteration']}", r[name]))
            for r in records
            if r.get(name) is not None
        ]
        for name in ("lm_loss", "validation_loss")
    )
    window = max(1, len(train) // 40)
    series = [
        line_charts.Series("training", line_charts.thinned(train), 2, faint=True),
        line_charts.Series("training, smoothed", line_charts.thinned(line_charts.smoothed(train, window)), 2),
        line_charts.Series("validation", valid, 1, dots=True),
    ]
    chart = line_charts.line_chart(
        series, "iteration", "masked-residue loss (nats)", "Loss of pretraining by iteration", decades=True
    )
    text = f"Pretraining. Thin: training loss; thick: its mean over {window} iterations"
    return _figure(chart, text + ("; dots: validation." if valid else "."))


# --- predictions ----------------------------------------------------------------------------------------------------


def predictions(groups: Sequence[Sequence[Evaluated]], colors: dict[str, int]) -> str:
    """Figures of the predictions of each evaluation with a results_SPLIT.pkl."""
    made = []
    for group in groups:
        pictures = _pictures(group, colors)
        if pictures:
            record = group[0].record
            title = escape(f"{task_heading(record)}, {record.split}")
            place = escape(shown_data(record.data_name, record.is_simulated))
            made.append(f'<h3>{title}</h3><p class="place">{place}</p><div class="panels">{pictures}</div>')
    return "".join(made)


def _pictures(group: Sequence[Evaluated], colors: dict[str, int]) -> str:
    """One figure per column; the first seed represents a model with several."""
    group = [runs[0] for runs in columns_in(group).values()]
    draw = {
        TaskType.RESIDUE_PAIR: _contacts,
        TaskType.RESIDUE_CLASS: _residues,
        TaskType.SEQUENCE_CLASS: _confusions,
        TaskType.VALUE: _scatters,
    }.get(task_type_of(group[0].record))  # type: ignore[arg-type]  # None: a third party's task
    if draw is None:
        return ""
    try:
        return draw(group, colors)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        files = ", ".join(str(e.results_file) for e in group)
        raise DataError(f"{files}: predictions or labels don't have the shapes of the task ({error})") from error


def _residues(group: Sequence[Evaluated], colors: dict[str, int]) -> str:
    return _confusions(group, colors) + _strips(group, colors, _residue_accuracy, "fraction of correct residues")


def _contacts(group: Sequence[Evaluated], colors: dict[str, int]) -> str:
    return _contact_maps(group, colors) + _strips(group, colors, _contact_precision, "P@L/5, separation 6 or more")


def _residue_accuracy(result: dict[str, Any]) -> float:
    counts = measure_tokens(np.asarray(result["prediction"]), np.asarray(result["target"]))
    return counts.correct / counts.counted if counts.counted else math.nan


def _contact_precision(result: dict[str, Any]) -> float:
    row = measure_contacts(np.asarray(result["prediction"]), np.asarray(result["target"]))
    return row.precisions[NAMES.index("precision_at_l5")]


def _strips(
    group: Sequence[Evaluated], colors: dict[str, int], measure: Callable[[dict[str, Any]], float], label: str
) -> str:
    """The value of each protein, in a strip per model."""
    strips = []
    for e in group:
        results = load_results(e)
        if results:
            values = np.array([measure(result) for result in results])
            strips.append(Strip(e.label, colors[e.column], [str(result["id"]) for result in results], values))
    if not strips:
        return ""
    title = f"{label} of each protein of {task_words(group[0].record)}"
    text = f"<b>Each protein</b>: {label}; the bar is the median."
    if any(strip.values.size > MOST_DOTS for strip in strips):
        text += f" Of each model, {MOST_DOTS} proteins are drawn."
    return _figure(strip_chart(strips, label, title), text)


def _confusions(group: Sequence[Evaluated], colors: dict[str, int]) -> str:
    return "".join(_confusion(e) for e in group)


def _scatters(group: Sequence[Evaluated], colors: dict[str, int]) -> str:
    columns = several_columns(group[0].record)
    if not columns:
        return "".join(_scatter(e, colors[e.column]) for e in group)
    return "".join(_scatter(e, colors[e.column], column) for column in columns for e in group)


def _contact_maps(group: Sequence[Evaluated], colors: dict[str, int]) -> str:
    """Contact maps of the protein of median length: a choice that does not depend on the predictions."""
    figures, chosen = [], None
    for e in group:
        results = load_results(e)
        if not results:
            continue
        if chosen is None:
            order = sorted(range(len(results)), key=lambda index: len(results[index]["target"]))
            chosen = order[len(order) // 2]
        result = results[chosen]
        chart, precision = charts.contact_map(result, e.label, colors[e.column])
        text = (
            f"<b>{escape(e.label)}</b>: P@L {precision:.2f} of {escape(str(result['id']))}"
            f" ({len(result['target'])} residues). Below the diagonal: true contacts; above: the L best pairs,"
            " filled where correct."
        )
        figures.append(_figure(chart, text))
    return "".join(figures)


def _confusion(evaluation: Evaluated) -> str:
    confusion = evaluation.record.confusion or _confusion_of_results(evaluation)
    if confusion is None:
        return ""
    if not confusion.counts:
        return _figure(_pairs_table(confusion), f"<b>{escape(evaluation.label)}</b>: the classes confused most often.")
    title = f"Confusion matrix of {task_words(evaluation.record)} by {evaluation.label}"
    chart = charts.confusion_matrix(np.array(confusion.counts), confusion.names, title)
    text = f"<b>{escape(evaluation.label)}</b>: of each true class (row), percent predicted as (column)."
    return _figure(chart, text)


def _confusion_of_results(evaluation: Evaluated) -> Confusion | None:
    """The confusion matrix of the predictions, for files of earlier versions; None without predictions."""
    task_type = task_type_of(evaluation.record)
    results = load_results(evaluation)
    if task_type is None or not results:
        return None
    metrics = TASK_TYPE_METRICS[task_type]
    rows = [metrics.measure(np.asarray(r["prediction"]), np.asarray(r["target"])) for r in results]
    counts = None if metrics.confusions is None else metrics.confusions(rows)
    record = evaluation.record
    return None if counts is None else confusion_of(counts, class_names(record.task, record.config))


def _pairs_table(confusion: Confusion) -> str:
    """The pairs of classes that were confused most often, as a table."""
    lines = [
        f'<tr><th scope="row">{escape(pair.true)}</th><td>{escape(pair.predicted)}</td>'
        f'<td class="n" data-value="{pair.count}">{pair.count:,} of {pair.of:,}</td></tr>'
        for pair in confusion.pairs[:_SHOWN_PAIRS]
    ]
    names = (("true class", ""), ("predicted as", ""), ("proteins", ' class="n"'))
    head = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in names)
    return f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _scatter(evaluation: Evaluated, color: int, column: str | None = None) -> str:
    """Predicted against true values; of several targets, those of one column in the proteins that have it."""
    results = load_results(evaluation)
    place, of = 0, task_words(evaluation.record)
    if column is not None:
        place, of = several_columns(evaluation.record).index(column), column
        results = [r for r in results if not np.isnan(np.asarray(r["target"])[place])]
    if not results:
        return ""
    true, predicted = (
        np.array([float(np.asarray(r[key]).reshape(-1)[place]) for r in results]) for key in ("target", "prediction")
    )
    title = f"Predicted against true values of {of} by {evaluation.label}"
    chart = charts.scatter_chart(true, predicted, color, title, [str(r["id"]) for r in results], of)
    sampled = f", {charts.MOST_POINTS:,} of them drawn" if len(results) > charts.MOST_POINTS else ""
    name = evaluation.label if column is None else f"{column}, {evaluation.label}"
    text = f"<b>{escape(name)}</b>: {len(results):,} proteins{sampled}; dashed: predicted = true."
    return _figure(chart, text)
