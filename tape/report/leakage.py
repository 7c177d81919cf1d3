"""The report's scores in bins of the test proteins' identity to training data."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tape.evaluation.leakage_scores import BinScores, ReferenceScores
from tape.metrics import Metric
from tape.report.cells import markdown_row, shown_interval
from tape.report.rows import (
    SEEDS_NOTE,
    Evaluated,
    SplitRow,
    columns_in,
    finite,
    groups_of,
    headlines_of,
    in_known_order,
    mean_of,
    shown_spread,
    shown_value,
    task_heading,
    with_signs,
)
from tape.report.seeds import SeedMean
from tape.report.tables import scrolling

RELATED = 30.0  # percent; proteins above it have similar structures as a rule (Sander and Schneider 1991)


@dataclass(frozen=True)
class LeakageRow(SplitRow):
    """A metric of the proteins in one bin, for every model."""

    reference: str
    identity: str
    proteins: int
    no_hit: int
    metric: str
    values: dict[str, Metric]


def leakage_rows(evaluations: Sequence[Evaluated]) -> list[LeakageRow]:
    """The rows: for each data set, split, file of training proteins and metric, the bins.

    Models that were evaluated with different tables of tape-leakage have rows of their own.
    """
    return [row for group in groups_of(evaluations) for row in _rows_of_group(group)]


def _rows_of_group(group: Sequence[Evaluated]) -> list[LeakageRow]:
    record = group[0].record
    place = (record.task, record.data_name, record.is_simulated, record.split)
    rows = []
    for reference, runs in _by_reference(group):
        for key, title in headlines_of(group):
            for number, one in enumerate(reference.bins):
                values = {column: _measured(found, number, key) for column, found in runs.items()}
                shown = {column: metric for column, metric in values.items() if metric is not None}
                counts = (one.identity.label, one.proteins, one.no_hit)
                if shown or not one.proteins:
                    rows.append(LeakageRow(*place, reference.reference.name, *counts, title, shown))
    return rows


def _by_reference(group: Sequence[Evaluated]) -> list[tuple[ReferenceScores, dict[str, list[ReferenceScores]]]]:
    """Each file of training proteins, with the scores of each column; the proteins in its bins are the same."""
    found: dict[tuple[object, ...], tuple[ReferenceScores, dict[str, list[ReferenceScores]]]] = {}
    for column, runs in columns_in(group).items():
        for run in runs:
            for scores in () if run.record.leakage is None else run.record.leakage.references:
                key = (scores.reference.name, scores.reference.sha256, tuple(map(_counts, scores.bins)))
                _, columns = found.setdefault(key, (scores, {}))
                columns.setdefault(column, []).append(scores)
    return list(found.values())


def _counts(one: BinScores) -> tuple[float, float, int]:
    return one.identity.low, one.identity.high, one.proteins


def _measured(runs: Sequence[ReferenceScores], number: int, name: str) -> Metric | None:
    return mean_of([scores.bins[number].metric(name) for scores in runs])


def related_notes(evaluations: Sequence[Evaluated]) -> list[str]:
    """For each split and file of training proteins, the number of test proteins with a close relative."""
    notes = []
    for group in groups_of(evaluations):
        record = group[0].record
        for scores, _ in _by_reference(group):
            close = sum(one.proteins for one in scores.bins if one.identity.low >= RELATED)
            total = sum(one.proteins for one in scores.bins)
            notes.append(
                f"{record.task}, {record.split}: {close:,} of {total:,} proteins have a relative of {RELATED:g} %"
                f" identity or more in {scores.reference.name}"
            )
    return list(dict.fromkeys(notes))


def markdown_leakage(evaluations: Sequence[Evaluated]) -> str:
    """The table of the bins, with the numbers of related proteins; empty if no evaluation has bins."""
    rows = leakage_rows(evaluations)
    if not rows:
        return ""
    columns = _columns_of(rows)
    lines = ["", "By the highest sequence identity of each test protein to training data:", ""]
    lines.append(markdown_row(("task", "split", "metric", "training data", "identity", "proteins", *columns)))
    lines.append("|:--|:--|:--|:--|:--|--:|" + "--:|" * len(columns))
    for row in rows:
        cells = [f"{shown_value(metric)} {shown_spread(metric)}".rstrip() for metric in map(row.values.get, columns)]
        place = (row.task, row.split, row.metric, row.reference, row.identity, f"{row.proteins:,}")
        lines.append(markdown_row((*place, *cells)))
    lines += ["", *(f"- {note}" for note in related_notes(evaluations))]
    if any(isinstance(metric, SeedMean) for row in rows for metric in row.values.values()):
        lines += ["", f"{SEEDS_NOTE}."]
    return "\n".join(lines) + "\n"


def leakage_table(evaluations: Sequence[Evaluated]) -> str:
    """The table of the bins in HTML; empty if no evaluation has bins."""
    rows = leakage_rows(evaluations)
    if not rows:
        return ""
    columns = _columns_of(rows)
    headings = {e.record.task: task_heading(e.record) for e in evaluations}
    names = (("task, metric", ""), ("training data", ""), ("identity", ""), ("proteins", ' class="n"'))
    head = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in names)
    head += "".join(f'<th scope="col" class="n">{escape(column)}</th>' for column in columns)
    lines = []
    for row in rows:
        metric = escape(with_signs(row.metric))
        name = f"{escape(headings[row.task])}, {escape(row.split)}<br><small>{metric}</small>"
        identity = escape(with_signs(row.identity))
        hits = f"<br><small>{row.no_hit:,} without a hit</small>" if row.no_hit else ""
        cells = "".join(_value_cell(row.values.get(column), column) for column in columns)
        lines.append(
            f'<tr><th scope="row">{name}</th><td class="data">{escape(row.reference)}</td>'
            f'<td>{identity}</td><td class="n" data-column="proteins">{row.proteins:,}{hits}</td>{cells}</tr>'
        )
    notes = "".join(f"<li>{escape(note)}</li>" for note in related_notes(evaluations))
    caption = (
        "<caption>The highest sequence identity of each test protein to training data. Intervals of a bin cover the"
        " choice of its proteins.</caption>"
    )
    table = f'<table class="folding">{caption}<thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'{scrolling(table, "identity to training data")}<ul class="reasons">{notes}</ul>'


def _value_cell(metric: Metric | None, column: str) -> str:
    if metric is None or metric.interval is None:
        spread = shown_spread(metric)
    else:
        spread = shown_interval(metric.interval, metric=metric.name)
    small = f"<br><small>{spread}</small>" if spread else ""
    return f'<td class="n" data-column="{escape(column)}">{shown_value(metric)}{small}</td>'


def csv_leakage(evaluations: Sequence[Evaluated]) -> str:
    """The bins as CSV with full precision and intervals, or standard deviations over seeds; empty without bins."""
    rows = leakage_rows(evaluations)
    if not rows:
        return ""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ["task", "data", "simulated", "split", "reference", "identity", "proteins", "no_hit", "metric"]
    writer.writerow([*names, "model", "value", "low", "high", "std", "seeds"])
    for row in rows:
        place = [row.task, row.data, row.simulated, row.split, row.reference, row.identity, row.proteins, row.no_hit]
        for column, metric in row.values.items():
            spread = (metric.std, metric.seeds) if isinstance(metric, SeedMean) else (None, None)
            ends = metric.interval or (None, None)
            writer.writerow([*place, row.metric, column, finite(metric.value), *ends, *spread])
    return stream.getvalue()


def _columns_of(rows: Sequence[LeakageRow]) -> list[str]:
    return in_known_order(column for row in rows for column in row.values)
