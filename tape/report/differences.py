"""The report's paired differences: each model minus random weights, on the same test proteins."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tape.errors import ConfigError, DataError
from tape.evaluation.records import finite
from tape.metrics import Bootstrap
from tape.metrics.paired import Difference
from tape.report.cells import markdown_row, shown_interval, shown_number
from tape.report.compare import Comparison, Measurements, can_be_compared, compared, recorded_groups
from tape.report.rows import (
    COLUMNS,
    Evaluated,
    MetricRow,
    columns_in,
    groups_of,
    headlines_of,
    in_known_order,
    shown_data,
    shown_task,
    task_heading,
    trained_on,
)
from tape.report.tables import first_cells, scrolling

BASELINE = COLUMNS["random"]
_EXPLANATION = (
    f"Each model minus {BASELINE} on the same test proteins (means, where there are several seeds). Brackets are 95 %"
    " intervals of a paired bootstrap; they cover the choice of proteins, and not the randomness of training."
)


@dataclass(frozen=True)
class DifferenceRow(MetricRow):
    """The differences of a metric on a split, for every model.

    Attributes:
        heading: the task's.
        values: column -> difference from the column BASELINE.
    """

    heading: str
    values: dict[str, Difference]


@dataclass(frozen=True)
class Differences:
    """The differences of all evaluations from random weights.

    Attributes:
        rows: one per data set, split and metric of the report's table; where intervals are over groups of proteins,
            also of the metric's mean within groups.
        notes: sentences without full stops on groups of proteins, proteins left out, and what can't be compared.
    """

    rows: tuple[DifferenceRow, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, evaluations: Sequence[Evaluated], bootstrap: Bootstrap | None = None) -> Differences:
        """Compute the differences; there are none without evaluations of random weights.

        Args:
            evaluations: those of the report.
            bootstrap: number of resamples and seed; None: those of ``tape-compare``.
        """
        rows: list[DifferenceRow] = []
        notes: dict[str, None] = {}
        for group in groups_of(evaluations):
            columns = columns_in(group)
            baseline = columns.pop(BASELINE, None)
            if baseline is None or not columns:
                continue
            record = baseline[0].record
            data = shown_data(record.data_name, record.is_simulated)
            place = f"{shown_task(record.task)}, {data}, {record.split}"
            if not can_be_compared(record):
                notes[f"{place}: the predictions are not compared, since their scores are not stored"] = None
                continue
            found, failed = _compared(columns, baseline, bootstrap or Bootstrap())
            for column, comparison in found.items():
                own = (*_notes(comparison, column), *_training_note(column, columns[column], baseline))
                notes.update(dict.fromkeys(f"{place}: {note}" for note in own))
            for error, names in failed.items():
                notes[f"{place}: {' and '.join(names)} can't be compared: {error}"] = None
            where = (record.task, record.data_name, record.is_simulated, record.split, record.proteins)
            for key, title in headlines_of(group):
                for within in (False, True):
                    values = {column: one for column in found for one in _of(found[column], key, within)}
                    if values:
                        name = f"{title}, mean within groups" if within else title
                        rows.append(DifferenceRow(*where, name, task_heading(record), values))
        return cls(tuple(rows), tuple(notes))

    @property
    def columns(self) -> list[str]:
        """The models that are compared with random weights."""
        return in_known_order(column for row in self.rows for column in row.values)

    def markdown(self) -> str:
        """The table; empty if there is nothing to compare."""
        if not self.rows and not self.notes:
            return ""
        lines = []
        if self.rows:
            lines += ["", _EXPLANATION, ""]
            lines.append(markdown_row(("task", "data", "split (proteins)", "metric", *self.columns)))
            lines.append("|:--|:--|:--|:--|" + "--:|" * len(self.columns))
        for row in self.rows:
            cells = [_cell(row.values.get(column)) for column in self.columns]
            lines.append(markdown_row((*row.place, *cells)))
        if self.notes:
            lines += ["", f"On differences from {BASELINE}:", "", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """The table in HTML; empty if there is nothing to compare."""
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        notes = f'<ul class="reasons">{notes}</ul>' if notes else ""
        if not self.rows:
            return notes
        head = "".join(f'<th scope="col" class="n">{escape(column)}</th>' for column in self.columns)
        lines = []
        for row in self.rows:
            cells = "".join(_html_cell(row.values.get(column), column) for column in self.columns)
            lines.append(f"<tr>{first_cells(row, row.heading)}{cells}</tr>")
        caption = f"<caption>{_EXPLANATION} Bold: the interval excludes 0.</caption>"
        head = f'<thead><tr><th scope="col">task, metric</th><th scope="col">data</th>{head}</tr></thead>'
        table = f'<table class="folding sortable">{caption}{head}<tbody>{"".join(lines)}</tbody></table>'
        return scrolling(table, f"minus {BASELINE}") + notes

    def csv(self) -> str:
        """The table as CSV with full precision; empty if there is nothing to compare."""
        if not self.rows:
            return ""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        names = ["task", "data", "simulated", "split", "proteins", "metric", "model"]
        writer.writerow([*names, "value", "random weights", "difference", "low", "high"])
        for row in self.rows:
            place = [row.task, row.data, row.simulated, row.split, row.proteins, row.metric]
            for column, one in row.values.items():
                numbers = [finite(one.first), finite(one.second), finite(one.value)]
                writer.writerow([*place, column, *numbers, *(one.interval or (None, None))])
        return stream.getvalue()


def _compared(
    columns: Mapping[str, list[Evaluated]], baseline: list[Evaluated], bootstrap: Bootstrap
) -> tuple[dict[str, Comparison], dict[str, list[str]]]:
    """The comparison of each column with the baseline, and the columns without one by error."""
    found: dict[str, Comparison] = {}
    failed: dict[str, list[str]] = {}
    measurements: Measurements = {}
    for column, runs in columns.items():
        try:
            groups = recorded_groups([*runs, *baseline])
            found[column] = compared(runs, baseline, bootstrap, groups, measurements)
        except (ConfigError, DataError) as error:
            failed.setdefault(str(error), []).append(column)
    return found, failed


def _of(comparison: Comparison, name: str, within: bool) -> list[Difference]:
    """The difference of a metric over all proteins, or of its mean within groups; empty if there is none."""
    differences = comparison.within_groups if within else comparison.differences
    return [one for one in differences if one.name == name]


def _training_note(column: str, runs: list[Evaluated], baseline: list[Evaluated]) -> list[str]:
    """That the two models were trained on different numbers of proteins, or may have been."""
    own, other = map(trained_on, (runs, baseline))
    return [] if own == other else [f"{column} was trained on {own}, {BASELINE} on {other}"]


def _notes(comparison: Comparison, column: str) -> list[str]:
    notes = [f"intervals over {comparison.groups:,} groups of proteins"] if comparison.groups else []
    if comparison.left_out:
        notes.append(f"{comparison.left_out:,} proteins without a label or a finite prediction of {column} left out")
    return notes


def _cell(one: Difference | None) -> str:
    if one is None:
        return "-"
    interval = "" if one.interval is None else f" {shown_interval(one.interval, '+', one.name)}"
    return f"{shown_number(one.value, '+', one.name)}{interval}"


def _html_cell(one: Difference | None, column: str) -> str:
    if one is None:
        return f'<td class="n" data-column="{escape(column)}">-</td>'
    text = shown_number(one.value, "+", one.name)
    if one.interval is not None and (one.interval[0] > 0 or one.interval[1] < 0):
        text = f"<strong>{text}</strong>"
    small = "" if one.interval is None else f"<br><small>{shown_interval(one.interval, '+', one.name)}</small>"
    value = "" if math.isnan(one.value) else f' data-value="{one.value!r}"'
    return f'<td class="n" data-column="{escape(column)}"{value}>{text}{small}</td>'
