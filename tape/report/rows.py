"""The content of a report: the evaluations found below directories, and the rows of its table."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ConfigError
from tape.evaluation.records import EvaluationRecord, TrainingSize, finite, read_record
from tape.io.json_files import read_json_object
from tape.io.run_layout import BEST_NAME, resolve_model_directory
from tape.metrics import Metric
from tape.report.cells import markdown_row, shown_number
from tape.report.published import compared_metric, grouped_reasons, load_published, published_beside
from tape.report.seeds import SeedMean, mean_over_seeds
from tape.targets import Target
from tape.tasks import TaskType

# task -> metrics in the table: (key in eval_SPLIT.json, title)
HEADLINES: dict[str, tuple[tuple[str, str], ...]] = {
    "secondary_structure": (("accuracy", "3-class accuracy"),),
    "secondary_structure_8": (("accuracy", "8-class accuracy"),),
    "contact_prediction": (
        ("precision_at_l5", "P@L/5, separation >= 6"),
        ("precision_at_l5_medium_long", "P@L/5, separation >= 12"),
        ("precision_at_l5_long", "P@L/5, separation >= 24"),
    ),
    "unsupervised_contact_prediction": (
        ("precision_at_l5", "P@L/5, separation >= 6"),
        ("precision_at_l_long", "P@L, separation >= 24"),
    ),
    "remote_homology": (("accuracy", "top-1 accuracy"),),
    "fluorescence": (("spearmanr", "Spearman's rho"),),
    "stability": (("spearmanr", "Spearman's rho"),),
    "masked_language_modeling": (("perplexity", "perplexity"), ("accuracy", "accuracy")),
    "language_modeling": (("perplexity", "perplexity"), ("accuracy", "accuracy")),
}
_VALUE_HEADLINES = (("spearmanr", "Spearman's rho"), ("r2", "R2"), ("mae", "MAE"), ("rmse", "RMSE"))
# The same for tasks that are not in HEADLINES: the first of these that were all measured.
_OTHER_HEADLINES: tuple[tuple[tuple[str, str], ...], ...] = (
    HEADLINES["contact_prediction"],
    _VALUE_HEADLINES,
    (("accuracy", "accuracy"), ("macro_f1", "macro F1"), ("mcc", "MCC"), ("auroc", "AUROC"), ("auprc", "AUPRC")),
    (("accuracy", "accuracy"), ("macro_f1", "macro F1"), ("mcc", "MCC")),
    (("macro_f1", "macro F1"), ("micro_f1", "micro F1"), ("auroc", "AUROC"), ("auprc", "AUPRC")),
)
# The metrics of each of several targets, after the mean over targets.
_MEAN_HEADLINE = ("spearmanr", "Spearman's rho, mean over targets")
# A table with more models has a row per model instead of a column.
MOST_COLUMNS = 5
# suffix of a run's directory -> column of the table; other suffixes are the column's name
COLUMNS = {
    "onehot": "one-hot",
    "random": "random weights",
    "pretrained": "pretrained",
    "bundled": "bundled model",
    "frozen": "pretrained, frozen",
}
# directory of one run of --seeds N, below the common directory
_SEED = re.compile(r"seed_(\d+)")
SEEDS_NOTE = "\N{PLUS-MINUS SIGN} is the sample standard deviation over the seeds counted beside it"
# titles of the metrics for which lower is better
_LOSSES = ("perplexity", "loss", "MAE", "RMSE")


@dataclass(frozen=True)
class Evaluated:
    """One eval_SPLIT.json.

    Attributes:
        file: path of the file.
        run: directory of its run.
        column: name of the model in the table.
        record: content of the file.
        seed: seed of a run of ``--seeds N``, whose runs share a column; None for a single run.
    """

    file: Path
    run: Path
    column: str
    record: EvaluationRecord
    seed: int | None = None

    @property
    def label(self) -> str:
        """The column, with the seed if there is one."""
        return self.column if self.seed is None else f"{self.column}, seed {self.seed}"

    @property
    def directory(self) -> Path:
        """Directory of the run, or of all runs that differ only in their seed."""
        return self.run if self.seed is None else self.run.parent

    @property
    def results_file(self) -> Path:
        """File of the predictions; may not exist."""
        return self.file.parent / f"results_{self.record.split}.pkl"


@dataclass(frozen=True)
class SplitRow:
    """A row of a table on a split of a data set."""

    task: str
    data: str
    simulated: bool
    split: str

    @property
    def data_label(self) -> str:
        return shown_data(self.data, self.simulated)


@dataclass(frozen=True)
class MetricRow(SplitRow):
    """A row of a table on a metric of all proteins of a split."""

    proteins: int
    metric: str

    @property
    def place(self) -> tuple[str, ...]:
        """The first cells in Markdown."""
        return self.task, self.data_label, f"{self.split} ({self.proteins})", self.metric


@dataclass(frozen=True)
class ReportRow(MetricRow):
    """One row of the table: a metric on a split, for every model.

    Attributes:
        heading: the task's.
        train_samples: column -> the number of training proteins of a model that was trained on a part of them.
    """

    values: dict[str, Metric]
    heading: str = ""
    train_samples: dict[str, str] = field(default_factory=dict)


def shown_data(name: str, simulated: bool) -> str:
    """A data set's name, marked as simulated if the name does not contain the word."""
    return f"{name} (simulated)" if simulated and "simulated" not in name.lower() else name


def shown_task(task: str) -> str:
    """A task's name with spaces."""
    return task.replace("_", " ")


def task_words(record: EvaluationRecord) -> str:
    """What a model predicts, inside a sentence: the columns of a user's own table, or the task's name with spaces.

    Raises:
        CheckpointError: the model's configuration in the record is damaged.
    """
    target = _own_target(record)
    if target is None:
        return shown_task(record.task)
    return "contacts" if target.task_type == TaskType.RESIDUE_PAIR else target.column


def task_heading(record: EvaluationRecord) -> str:
    """:func:`task_words` with a capital letter, but for names of columns, such as ``kcat``."""
    words = task_words(record)
    return words if _own_target(record) is not None else f"{words[:1].upper()}{words[1:]}"


def _own_target(record: EvaluationRecord) -> Target | None:
    fields = record.config.get("target")
    try:
        target = None if fields is None else Target.from_dict(fields)
    except ConfigError as error:
        raise CheckpointError(f"evaluation of {record.task}, {record.split}: config: {error}") from error
    return target if target is not None and target.task == record.task else None


def read_evaluations(directories: Iterable[Path]) -> list[Evaluated]:
    """The evaluations below the directories; for a run with several evaluated epochs, that in best.json.

    Raises:
        ConfigError: there are none, a directory is missing, or two models belong to the same cell of the table.
        CheckpointError: a file is not an evaluation of the known schema.
    """
    files: dict[Path, Path] = {}  # by resolved path, as directories may overlap
    for directory in directories:
        if not directory.is_dir():
            raise ConfigError(f"{directory}: no such directory")
        for file in sorted(directory.rglob("eval_*.json")):
            files.setdefault(file.resolve(), file)
    found = [_read_evaluation(file) for file in files.values()]
    if not found:
        raise ConfigError(f"no eval_SPLIT.json below {', '.join(map(str, directories))}; run tape-eval first")
    return _one_per_cell([evaluation for evaluation in found if _is_chosen_epoch(evaluation, found)])


def _read_evaluation(file: Path) -> Evaluated:
    record = read_record(file)
    if not record.config:  # version 1 does not contain the configuration
        record = replace(record, config=_config_beside(file))
    run = next((parent for parent in file.parents if (parent / "args.json").is_file()), file.parent)
    seed = _SEED.fullmatch(run.name)
    # the part of the run directory's name after task and model
    suffix = (run.parent if seed else run).name.removeprefix(f"{record.task}_{record.model}_")
    return Evaluated(file, run, COLUMNS.get(suffix, suffix), record, int(seed[1]) if seed else None)


def _config_beside(file: Path) -> dict[str, Any]:
    config = file.parent / "config.json"
    return read_json_object(config) if config.is_file() else {}


def _is_chosen_epoch(evaluation: Evaluated, all_of_them: Sequence[Evaluated]) -> bool:
    """Whether the evaluated epoch is the only one of its run, or the best on validation data."""
    directory = evaluation.file.parent
    epochs = {other.file.parent for other in all_of_them if other.run == evaluation.run}
    best = resolve_model_directory(evaluation.run, (BEST_NAME,))
    return len(epochs) == 1 or best not in epochs or directory == best


def _one_per_cell(evaluations: Sequence[Evaluated]) -> list[Evaluated]:
    """Refuse two models with the same name; the seeds in one directory are one model."""
    cells: dict[tuple[str, str, str, str], dict[int | None, Evaluated]] = {}
    for evaluation in evaluations:
        record = evaluation.record
        cell = cells.setdefault((record.task, record.data_name, record.split, evaluation.column), {})
        other = next((e for e in cell.values() if e.directory != evaluation.directory), cell.get(evaluation.seed))
        if other is not None:
            raise ConfigError(
                f"{other.file} and {evaluation.file} are both {record.task} {record.split} of"
                f" {evaluation.column!r}; pass only one of them"
            )
        cell[evaluation.seed] = evaluation
    return list(evaluations)


def groups_of(evaluations: Sequence[Evaluated]) -> list[list[Evaluated]]:
    """Evaluations grouped by task, data set and split: tasks in the order of HEADLINES, columns in that of COLUMNS.

    The seeds of a column are adjacent and in ascending order.
    """
    order = [*COLUMNS.values()]
    tasks = [*HEADLINES, *dict.fromkeys(e.record.task for e in evaluations if e.record.task not in HEADLINES)]
    groups = []
    for task in tasks:
        here = [e for e in evaluations if e.record.task == task]
        for key in dict.fromkeys((e.record.data_name, e.record.split) for e in here):
            group = [e for e in here if (e.record.data_name, e.record.split) == key]
            met = [*order, *dict.fromkeys(e.column for e in group if e.column not in order)]
            groups.append(sorted(group, key=lambda e: (met.index(e.column), e.seed or 0)))
    return groups


def train_samples_of(runs: Iterable[Evaluated]) -> list[str]:
    """The different numbers of training proteins of those runs that were trained on a part of them."""
    sizes = [run.record.training for run in runs]
    return [*dict.fromkeys(str(size) for size in sizes if size is not None and size.proteins < size.available)]


def trained_on(runs: Sequence[Evaluated]) -> str:
    """The proteins that the models of a column were trained on, as text; records of earlier versions don't say."""
    sizes = dict.fromkeys(run.record.training for run in runs)
    return ", ".join(_shown_size(size) for size in sizes)


def _shown_size(size: TrainingSize | None) -> str:
    if size is None:
        return "a number of proteins that is not recorded"
    return f"all {size.available:,} proteins" if size.proteins == size.available else str(size)


def resampled(evaluations: Iterable[Evaluated]) -> str:
    """What intervals are over, for texts: proteins, or groups of the proteins of some splits."""
    over = {f"{e.record.task}, {e.record.split}: {e.record.groups}": None for e in evaluations if e.record.groups}
    return "proteins" + (f" or groups of them ({'; '.join(over)})" if over else "")


def columns_in(group: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """The evaluations of each column: one, or one per seed."""
    columns: dict[str, list[Evaluated]] = {}
    for evaluation in group:
        columns.setdefault(evaluation.column, []).append(evaluation)
    return columns


def measured(runs: Sequence[Evaluated], name: str) -> Metric | None:
    """A metric of one run, or its mean over several seeds; None if no run has it."""
    return mean_of([run.record.metric(name) for run in runs])


def mean_of(metrics: Sequence[Metric | None]) -> Metric | None:
    """The metric of one run, or its mean over several seeds; None if no run has it."""
    return metrics[0] if len(metrics) == 1 else mean_over_seeds(metrics)


def headlines_of(group: Sequence[Evaluated]) -> tuple[tuple[str, str], ...]:
    """Metrics in the table for a group's task, as (key, title).

    For a task of the user's own, they are the usual ones of its type, of several targets a mean and those of each; if
    these were not measured, the first metric other than the loss.
    """
    record = group[0].record
    if record.task in HEADLINES:
        return HEADLINES[record.task]
    columns = several_columns(record)
    if columns:
        each = [(f"{key}_{column}", f"{title} of {column}") for column in columns for key, title in _VALUE_HEADLINES]
        return (_MEAN_HEADLINE, *each)
    for headlines in _OTHER_HEADLINES:
        if all(record.metric(key) for key, _ in headlines):
            return headlines
    name = next((metric.name for metric in record.metrics if metric.name != "loss"), "loss")
    return ((name, name.replace("_", " ")),)


def several_columns(record: EvaluationRecord) -> tuple[str, ...]:
    """The targets of a model that predicts several values; empty for other models.

    Raises:
        CheckpointError: the model's configuration in the record is damaged.
    """
    target = _own_target(record)
    return () if target is None else target.value_names


def make_rows(evaluations: Sequence[Evaluated]) -> list[ReportRow]:
    """The rows of the table, one per data set, split and metric."""
    rows = []
    for group in groups_of(evaluations):
        first = group[0].record
        numbers = {column: ", ".join(train_samples_of(runs)) for column, runs in columns_in(group).items()}
        numbers = {column: number for column, number in numbers.items() if number}
        for key, title in headlines_of(group):
            found = {column: measured(runs, key) for column, runs in columns_in(group).items()}
            values = {column: metric for column, metric in found.items() if metric is not None}
            place = (first.task, first.data_name, first.is_simulated, first.split, first.proteins)
            rows.append(ReportRow(*place, title, values, task_heading(first), numbers))
    return rows


def columns_of(rows: Sequence[ReportRow]) -> list[str]:
    """The columns of the table: the known ones in the order of COLUMNS, then the others in order of appearance."""
    return in_known_order(column for row in rows for column in row.values)


def in_known_order(columns: Iterable[str]) -> list[str]:
    """Different columns: the known ones in the order of COLUMNS, then the others in order of appearance."""
    met = dict.fromkeys(columns)
    known = [column for column in COLUMNS.values() if column in met]
    return known + [column for column in met if column not in known]


def best_of(row: ReportRow) -> float | None:
    """The best value of a row; None if the row has only one."""
    numbers = [metric.value for metric in row.values.values() if not math.isnan(metric.value)]
    if len(numbers) < 2:
        return None
    return min(numbers) if row.metric.split(" of ")[0] in _LOSSES else max(numbers)


def with_signs(title: str) -> str:
    """A metric's title with mathematical signs, for HTML."""
    return title.replace(">=", "\N{GREATER-THAN OR EQUAL TO}")


def shown_value(metric: Metric | None) -> str:
    """As :func:`shown_number` writes it; a dash where there is none."""
    return "-" if metric is None else shown_number(metric.value, metric=metric.name)


def shown_spread(metric: Metric | None) -> str:
    """Standard deviation and number of seeds after a mean over seeds; empty for other values."""
    return metric.shown if isinstance(metric, SeedMean) and not math.isnan(metric.value) else ""


def markdown_table(rows: Sequence[ReportRow]) -> str:
    """The table; the best value of a row with several is bold, and a note explains means over seeds.

    With more than MOST_COLUMNS models, each has a row of its own.
    """
    columns = columns_of(rows)
    if len(columns) > MOST_COLUMNS:
        return _markdown_by_model(rows)
    lines = [
        markdown_row(("task", "data", "split (proteins)", "metric", *columns)),
        "|:--|:--|:--|:--|" + "--:|" * len(columns),
    ]
    for row in rows:
        best = best_of(row)
        cells = [_cell(row.values.get(column), best) for column in columns]
        lines.append(markdown_row((*row.place, *cells)))
    return "\n".join([*lines, *_note_lines(rows)]) + "\n"


def _note_lines(rows: Sequence[ReportRow]) -> list[str]:
    notes = notes_of(rows)
    return [line for note in notes for line in ("", f"{note}.")]


def notes_of(rows: Sequence[ReportRow]) -> list[str]:
    """Sentences below the table, without full stops: on means over seeds, and on models trained on fewer proteins."""
    notes = [SEEDS_NOTE] if has_means(rows) else []
    tasks: dict[str, dict[str, None]] = {}  # each text once: a task may have several splits and metrics
    for row in rows:
        shown_numbers = (f"{column} on {number}" for column, number in row.train_samples.items())
        tasks.setdefault(row.heading, {}).update(dict.fromkeys(shown_numbers))
    shown = [f"{heading}: {', '.join(own)}" for heading, own in tasks.items() if own]
    return [*notes, f"Trained on a part of the training proteins: {'; '.join(shown)}"] if shown else notes


def _markdown_by_model(rows: Sequence[ReportRow]) -> str:
    lines = ["| task | data | split (proteins) | metric | model | value |", "|:--|:--|:--|:--|:--|--:|"]
    for row in rows:
        best = best_of(row)
        cells = [(column, _cell(row.values[column], best)) for column in columns_of([row])]
        lines += [markdown_row((*row.place, *own)) for own in cells]
    return "\n".join([*lines, *_note_lines(rows)]) + "\n"


def has_means(rows: Sequence[ReportRow]) -> bool:
    """Whether a value of the table is a mean over seeds."""
    return any(isinstance(metric, SeedMean) for row in rows for metric in row.values.values())


def _cell(metric: Metric | None, best: float | None) -> str:
    text = shown_value(metric)
    text = f"**{text}**" if metric is not None and metric.value == best else text
    return f"{text} {shown_spread(metric)}".rstrip()


def markdown_published(evaluations: Sequence[Evaluated]) -> str:
    """Published numbers of the evaluated tasks, and why they are not comparable; empty if there are none."""
    groups = [group for group in groups_of(evaluations) if published_beside(group[0].record)]
    if not groups:
        return ""
    models = [model["name"] for model in load_published()["models"]]
    tasks = load_published()["tasks"]
    lines = ["", "Published numbers:", "", "| task | metric | " + " | ".join(models) + " |"]
    lines.append("|:--|:--|" + "--:|" * len(models))
    for task in dict.fromkeys(group[0].record.task for group in groups):
        record = next(group[0].record for group in groups if group[0].record.task == task)
        values = {entry.model: f"{entry.value:.2f}" for entry in published_beside(record)}
        cells = " | ".join(values.get(model, "-") for model in models)
        lines.append(f"| {task} | {tasks[task]['title']}, {tasks[task]['split']} | {cells} |")
    lines += ["", "Not comparable because:", ""]
    lines += [line for group in groups for line in _reason_lines(group)]
    return "\n".join(lines) + "\n"


def _reason_lines(group: Sequence[Evaluated]) -> list[str]:
    record = described_by(group)
    return [
        f"- {record.task}, {record.split}, {', '.join(models)}: {'; '.join(reasons)}"
        for models, reasons in grouped_reasons(published_beside(record))
    ]


def described_by(group: Sequence[Evaluated]) -> EvaluationRecord:
    """The record whose head represents the group: the first of a language model, otherwise the first."""
    return next((e.record for e in group if e.record.model != "onehot"), group[0].record)


def csv_table(rows: Sequence[ReportRow]) -> str:
    """The table as CSV with full precision, and each value's interval, or standard deviation and number of seeds, and
    the training proteins of models that were trained on a part of them."""
    columns = columns_of(rows)
    averaged = [c for c in columns if any(isinstance(row.values.get(c), SeedMean) for row in rows)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    ends = [f"{column} {end}" for column in columns for end in ("low", "high")]
    ends += [f"{column} {name}" for column in averaged for name in ("std", "seeds")]
    sampled = [column for column in columns if any(column in row.train_samples for row in rows)]
    ends += [f"{column} trained on" for column in sampled]
    writer.writerow(["task", "data", "simulated", "split", "proteins", "metric", *columns, *ends])
    for row in rows:
        found = [row.values.get(column) for column in columns]
        values = [None if metric is None else finite(metric.value) for metric in found]
        intervals = [(metric.interval if metric else None) or (None, None) for metric in found]
        place = [row.task, row.data, row.simulated, row.split, row.proteins, row.metric]
        spreads = [entry for column in averaged for entry in _spread_entries(row.values.get(column))]
        parts = [row.train_samples.get(column) for column in sampled]
        writer.writerow([*place, *values, *(end for interval in intervals for end in interval), *spreads, *parts])
    return stream.getvalue()


def _spread_entries(metric: Metric | None) -> tuple[float | None, int | None]:
    return (metric.std, metric.seeds) if isinstance(metric, SeedMean) else (None, None)


def comparison(runs: Sequence[Evaluated]) -> Metric | None:
    """The metric closest to the published definition; the first headline metric if it was not measured."""
    key = compared_metric(runs[0].record.task)
    found = None if key is None else measured(runs, key)
    return found or measured(runs, headlines_of(runs)[0][0])
