"""Comparison of two finetuned models on the same proteins: differences of metrics, and whether they are significant.

    python scripts/compare.py RUN OTHER_RUN [--split SPLIT] [--groups TABLE] [--all_metrics] [--out FILE]

Both runs must have been evaluated on the split (tape_eval.py or --eval_splits, which write eval_SPLIT.json and
results_SPLIT.pkl). Prints each metric of both runs, recomputed from the predictions, and the difference RUN minus
OTHER_RUN with its 95 % interval from a paired bootstrap over the proteins. A run of --seeds N counts as the mean of its
N models. The intervals do not cover the variation between training runs; to estimate that, train several seeds.
Proteins without a label, or for which a model has no finite prediction, are left out of both runs and counted below the
table.

With --groups, whole groups of proteins are resampled, such as the variants of one wild type or the members of a
family: these resemble each other, and intervals over single proteins are too narrow for what the models do on other
groups. Each metric is then also computed within each group and averaged over the groups. Evaluations whose own
intervals are over groups are compared over the same ones. The installed command is `tape-compare`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, DataError
from tape.evaluation.groups import Groups, read_groups
from tape.evaluation.records import EvaluationRecord
from tape.io.checksums import sha256_of
from tape.io.writing import check_output_directory, write_text
from tape.metrics import Bootstrap, TaskTypeMetrics, metrics_of
from tape.metrics.paired import Difference, differences_within_groups, paired_differences
from tape.report.cells import markdown_row, shown_interval, shown_number
from tape.report.predictions import load_results, task_type_of
from tape.report.rows import (
    Evaluated,
    groups_of,
    headlines_of,
    read_evaluations,
    several_columns,
    shown_data,
    train_samples_of,
    trained_on,
)
from tape.tasks import TaskType

# For other task types results_SPLIT.pkl contains only the best classes, not the scores that the metrics need.
_TASK_TYPES = (
    TaskType.VALUE,
    TaskType.SEQUENCE_CLASS,
    TaskType.MULTILABEL,
    TaskType.RESIDUE_CLASS,
    TaskType.RESIDUE_PAIR,
)
# Allowed difference between a recomputed metric and the recorded one, absolute for small and relative for large ones (a
# target has any unit): floating-point sums in another order.
_TOLERANCE = 1e-6
_COLUMNS = ("task", "data", "split (proteins)", "metric", "first", "second", "difference", "interval")

Seeds = list[Evaluated]
Measurements = dict[Path, "_Measured"]  # by eval_SPLIT.json


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison of the command line's two runs."""
    options = make_parser().parse_args(arguments)
    bootstrap = Bootstrap(options.bootstrap, options.seed)
    if options.out is not None:
        check_output_directory(options.out.parent, "--out")
    groups = None if options.groups is None else read_groups(options.groups)
    text = table(pairs_of(options.first, options.second, options.split), bootstrap, options.all_metrics, groups)
    if options.out is not None:
        write_text(options.out, f"{text}\n")
    print(text)


def table(
    pairs: Sequence[tuple[Seeds, Seeds]], bootstrap: Bootstrap, all_metrics: bool, given: Groups | None = None
) -> str:
    """The comparison in Markdown: the names of both runs, then one row per metric and split.

    Args:
        pairs: the evaluations of both models.
        bootstrap: number of resamples, seed and level.
        all_metrics: every metric, not only those of the report's table.
        given: groups of proteins to resample; None: those of the evaluations, if any.

    Raises:
        ConfigError, DataError: see :func:`compared`; or the table of the evaluations' groups is not what it was.
    """
    lines = [", ".join(_shown_models(pairs)), "", f"| {' | '.join(_COLUMNS)} |", f"|{':--|' * 4}{'--:|' * 4}"]
    notes = []
    for first, second in pairs:
        titles, record = dict(headlines_of(first)), first[0].record
        groups = given or recorded_groups([*first, *second])
        comparison = compared(first, second, bootstrap, groups)
        for difference in (*comparison.differences, *comparison.within_groups):
            if all_metrics or difference.name in titles:
                title = titles.get(difference.name, difference.name)
                if difference.groups is not None:
                    title += f", mean within groups ({difference.groups:,} of {comparison.groups:,})"
                lines.append(_line(first[0], title, difference))
        if groups is not None:
            notes.append(f"{record.task}, {record.split}: intervals over {comparison.groups:,} groups of {groups.path}")
        if comparison.left_out:
            notes.append(
                f"{record.task}, {record.split}: {comparison.left_out:,} of {record.proteins:,} proteins left out,"
                " without a label or a finite prediction"
            )
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def can_be_compared(record: EvaluationRecord) -> bool:
    """Whether the predictions of the record's task have the scores that a comparison needs."""
    return task_type_of(record) in _TASK_TYPES


def recorded_groups(evaluations: Sequence[Evaluated]) -> Groups | None:
    """The groups over which the evaluations' own intervals are; None if they are over proteins.

    Raises:
        ConfigError: they are not over the same groups, or the table is gone or has changed.
    """
    used = {one.record.groups and one.record.groups.sha256: one for one in reversed(evaluations)}
    first = evaluations[0]
    if len(used) > 1:
        over = (f"{one.record.groups or 'proteins'} in {one.file}" for one in used.values())
        raise ConfigError(f"intervals are over {' and over '.join(over)}; name a table by tape-compare --groups")
    if first.record.groups is None:
        return None
    path = Path(first.record.groups.path)
    if not path.is_file() or sha256_of(path) != first.record.groups.sha256:
        state = "has changed since" if path.is_file() else "is gone"
        raise ConfigError(
            f"{path}: the table of groups of {first.file} {state}; evaluate again, or name a table by tape-compare"
            " --groups"
        )
    return read_groups(path)


def _shown_models(pairs: Sequence[tuple[Seeds, Seeds]]) -> Iterator[str]:
    """Both models, with the proteins that each was trained on if the two differ in them or either had only a part."""
    is_same = all(trained_on(one) == trained_on(other) for one, other in pairs)
    is_complete = not any(train_samples_of(seeds) for pair in pairs for seeds in pair)
    for name, splits in zip(("first", "second"), zip(*pairs, strict=True), strict=True):
        seeds = splits[0]
        notes = [f"mean of {len(seeds)} seeds"] if len(seeds) > 1 else []
        if not (is_same and is_complete):
            notes.append(f"trained on {trained_on([*itertools.chain.from_iterable(splits)])}")
        yield f"{name}: {seeds[0].directory}" + (f" ({', '.join(notes)})" if notes else "")


def _line(evaluation: Evaluated, title: str, difference: Difference) -> str:
    record = evaluation.record
    interval = difference.interval
    cells = (
        record.task,
        shown_data(record.data_name, record.is_simulated),
        f"{record.split} ({record.proteins:,})",
        title,
        shown_number(difference.first, metric=difference.name),
        shown_number(difference.second, metric=difference.name),
        shown_number(difference.value, "+", difference.name),
        "-" if interval is None else shown_interval(interval, "+", difference.name),
    )
    return markdown_row(cells)


def pairs_of(first: Path, second: Path, split: str | None) -> list[tuple[Seeds, Seeds]]:
    """Evaluations that two runs have in common (same task, data and split), each with its seeds.

    Raises:
        ConfigError: a directory contains no evaluation or those of several runs, or the two have none in common.
        CheckpointError: a file is not an evaluation.
    """
    ours, theirs = (_groups_of_one_run(directory) for directory in (first, second))
    pairs = [(ours[key], theirs[key]) for key in ours if key in theirs and split in (None, key[2])]
    if not pairs:
        of_split = "" if split is None else f" {split}"
        raise ConfigError(f"{first} and {second} have no evaluation{of_split} of the same task and data in common")
    return pairs


def _groups_of_one_run(directory: Path) -> dict[tuple[str, str, str], Seeds]:
    """The evaluations of one run by (task, data, split)."""
    evaluations = read_evaluations([directory])
    runs = sorted({str(evaluation.directory) for evaluation in evaluations})
    if len(runs) > 1:
        raise ConfigError(f"{directory} contains several runs ({', '.join(runs[:3])} ...); name one of them")
    return {(r.task, r.data_name, r.split): group for group in groups_of(evaluations) for r in [group[0].record]}


@dataclass(frozen=True)
class Comparison:
    """Two models on the proteins of one split.

    Attributes:
        differences: of every metric.
        left_out: number of proteins without a label, or without a finite prediction of one of the models.
        within_groups: of every metric, computed within groups and averaged over them; empty without groups.
        groups: number of the groups; 0 without groups.
    """

    differences: list[Difference]
    left_out: int
    within_groups: list[Difference] = field(default_factory=list)
    groups: int = 0


def compared(
    first: Seeds,
    second: Seeds,
    bootstrap: Bootstrap,
    groups: Groups | None = None,
    measurements: Measurements | None = None,
) -> Comparison:
    """Difference of every metric between two models on one split, each model with one seed or several.

    Args:
        first, second: the seeds of each model.
        bootstrap: number of resamples, seed and level.
        groups: groups of proteins to resample as wholes.
        measurements: those of earlier comparisons on this split, to which new ones are added; None: none are kept.

    Raises:
        ConfigError: the task's predictions cannot be compared, or there are none.
        DataError: the predictions are damaged, are not for the same proteins with the same labels, or have no protein
            with a label and finite predictions in common, or a protein has no group.
    """
    task = first[0].record.task
    task_type = task_type_of(first[0].record)
    if task_type is None:
        raise ConfigError(f"{first[0].file}: {task} is not a known task")
    if task_type not in _TASK_TYPES:
        raise ConfigError(f"{first[0].file}: no scores are stored for {task}, but a comparison needs them")
    columns = several_columns(first[0].record)
    if any(several_columns(evaluation.record) != columns for evaluation in (*first, *second)):
        raise ConfigError(
            f"{first[0].file} and {second[0].file}: the models have other targets, or the same in another order"
        )
    metrics = metrics_of(task_type, columns)
    reference: _Measured | None = None
    complete: np.ndarray | None = None
    rows: list[list[Any]] = []
    for evaluation in (*first, *second):  # one at a time: contact maps are large, their measurements small
        measured = None if measurements is None else measurements.get(evaluation.file)
        measured = measured or _measured(evaluation, metrics)
        reference = reference or measured
        if not _same_proteins(reference, measured):
            raise DataError(
                f"{first[0].results_file} and {evaluation.results_file} do not contain the same proteins with the same"
                " labels in the same order"
            )
        if measurements is not None:  # without their own targets, which are large contact maps
            measurements[evaluation.file] = replace(measured, targets=reference.targets)
        rows.append(measured.rows)
        complete = measured.complete if complete is None else complete & measured.complete
    assert complete is not None  # there are two models
    if not complete.any():
        raise DataError(f"{first[0].results_file}: no protein has a label and a finite prediction of both models")
    kept = np.flatnonzero(complete)
    rows = [[own[number] for number in kept] for own in rows]
    one, other, left_out = rows[: len(first)], rows[len(first) :], complete.size - kept.size
    if groups is None or reference is None:
        return Comparison(paired_differences(one, other, metrics, bootstrap), left_out)
    everyone = groups.numbers(reference.identifiers, f"{task} {first[0].record.split}")
    numbers = everyone[kept]
    bootstrap = replace(bootstrap, groups=numbers)
    return Comparison(
        paired_differences(one, other, metrics, bootstrap),
        left_out,
        differences_within_groups(one, other, metrics, bootstrap),
        len(np.unique(numbers)),
    )


def _measured(evaluation: Evaluated, metrics: TaskTypeMetrics) -> _Measured:
    results = load_results(evaluation)
    if not results:
        raise ConfigError(f"{evaluation.results_file}: no predictions; evaluate the run again with tape-eval")
    try:
        rows = [metrics.measure(result["prediction"], result["target"]) for result in results]
        recomputed = metrics.summarize(rows)
        targets = [np.asarray(result["target"]) for result in results]
        predicted = [bool(np.isfinite(np.asarray(result["prediction"], dtype=np.float64)).all()) for result in results]
        labeled = [bool(np.isfinite(target.astype(np.float64)).any()) for target in targets]
    except (AttributeError, TypeError, ValueError, LookupError, OverflowError):
        raise DataError(f"{evaluation.results_file}: predictions do not match their labels in shape or range") from None
    for metric in recomputed:
        written = evaluation.record.metric(metric.name)
        if written is not None and not np.isclose(metric.value, written.value, _TOLERANCE, _TOLERANCE, equal_nan=True):
            raise DataError(
                f"{evaluation.results_file} gives {metric.name} {metric.value:.6g}, but {evaluation.file.name} records"
                f" {written.value:.6g}: they are from different evaluations; evaluate the run again"
            )
    return _Measured([str(r["id"]) for r in results], targets, rows, np.array(predicted) & np.array(labeled))


def _same_proteins(one: _Measured, other: _Measured) -> bool:
    return one.identifiers == other.identifiers and all(map(_same_labels, one.targets, other.targets))


def _same_labels(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are equal; missing values (nan) are."""
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")


@dataclass(frozen=True)
class _Measured:
    """One model's predictions of a split, reduced to the rows that metrics summarize."""

    identifiers: list[str]
    targets: list[np.ndarray]
    rows: list[Any]
    complete: np.ndarray  # (N,) whether a protein has a label and a finite prediction


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, metavar="RUN", help="directory of a run")
    parser.add_argument("second", type=Path, metavar="OTHER_RUN", help="directory of another run of the same task")
    parser.add_argument("--split", help="compare on this split only (default: all splits that both were evaluated on)")
    parser.add_argument(
        "--all_metrics",
        action="store_true",
        help="every metric, not only those in the report's table; the loss, accuracy_all_residues and"
        " coverage_90 cannot be recomputed from predictions",
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, metavar="N", help="number of bootstrap resamples (default %(default)s)"
    )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="TABLE",
        help="table with the columns id and group of each protein: resample whole groups, and show means within groups"
        " (default: the groups of both evaluations' own intervals, if they have any)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file that also gets the table")
    parser.add_argument("--seed", type=int, default=42, help="seed of the bootstrap resamples (default %(default)s)")
    return parser
