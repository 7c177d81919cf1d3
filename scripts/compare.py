#!/usr/bin/env python
"""Two finetuned models on the same proteins: how far apart are they, and how much of it may be chance?

    python scripts/compare.py RUN OTHER_RUN [--split SPLIT] [--all_metrics]

Both runs must have been evaluated on the split (tape_eval.py or --eval_splits, which leave eval_SPLIT.json and
results_SPLIT.pkl). Printed is each metric of both, computed again from the predictions, and RUN minus OTHER_RUN with a
95 % interval of that difference: a paired bootstrap over the proteins. A run of --seeds N counts as the mean of its N
models. What training's own chance does to a single seed is in no interval; train several.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from tape.errors import ConfigError, DataError, run_cli
from tape.metrics import TASK_TYPE_METRICS, Bootstrap, TaskTypeMetrics
from tape.metrics.paired import Difference, paired_differences
from tape.report.predictions import load_results, shape_of
from tape.report.rows import Evaluated, groups_of, headlines_of, read_evaluations, shown_data, shown_number
from tape.tasks import TaskType

# Of other shapes results_SPLIT.pkl keeps the best classes alone, without the scores that the metrics need.
_SHAPES = (TaskType.VALUE, TaskType.SEQUENCE_CLASS, TaskType.RESIDUE_CLASS, TaskType.RESIDUE_PAIR)
# What a value may differ by from the one that the evaluation wrote down: the order of a sum.
_TOLERANCE = 1e-6
_COLUMNS = ("task", "data", "split (proteins)", "metric", "first", "second", "difference", "interval")

Seeds = list[Evaluated]


@dataclass(frozen=True)
class _Measured:
    """One model's predictions of a split, reduced to what metrics are made of."""

    identifiers: list[str]
    targets: list[np.ndarray]
    rows: list[Any]


def compared(first: Seeds, second: Seeds, bootstrap: Bootstrap) -> list[Difference]:
    """Differences of all metrics of a split between two models, each of one seed or several.

    Raises:
        ConfigError: the task's predictions can't be compared, or they are not there.
        DataError: they are damaged, or not of the same proteins with the same labels.
    """
    task = first[0].record.task
    shape = shape_of(task)
    if shape is None:
        raise ConfigError(f"{first[0].file}: {task} is no task that this program knows")
    if shape not in _SHAPES:
        raise ConfigError(f"{first[0].file}: of {task} no scores are kept, which a comparison needs")
    metrics = TASK_TYPE_METRICS[shape]
    reference: _Measured | None = None
    rows: list[list[Any]] = []
    for evaluation in (*first, *second):  # one after the other: contact maps are large, what is measured of them small
        measured = _measured(evaluation, metrics)
        reference = reference or measured
        if not _same_proteins(reference, measured):
            raise DataError(
                f"{first[0].results_file} and {evaluation.results_file} are not of the same proteins with the same"
                " labels, in the same order"
            )
        rows.append(measured.rows)
    return paired_differences(rows[: len(first)], rows[len(first) :], metrics, bootstrap)


def _measured(evaluation: Evaluated, metrics: TaskTypeMetrics) -> _Measured:
    results = load_results(evaluation)
    if not results:
        raise ConfigError(f"{evaluation.results_file}: no predictions there; evaluate the run again with tape_eval.py")
    try:
        rows = [metrics.measure(result["prediction"], result["target"]) for result in results]
    except (TypeError, ValueError, IndexError):
        raise DataError(f"{evaluation.results_file}: predictions don't fit their labels") from None
    for metric in metrics.summarize(rows):
        written = evaluation.record.metric(metric.name)
        if written is not None and not np.isclose(metric.value, written.value, 0, _TOLERANCE, equal_nan=True):
            raise DataError(
                f"{evaluation.results_file} gives {metric.name} {metric.value:.6f}, {evaluation.file.name}"
                f" {written.value:.6f}: they are of different evaluations; evaluate the run again"
            )
    return _Measured([str(r["id"]) for r in results], [np.asarray(r["target"]) for r in results], rows)


def _same_proteins(one: _Measured, other: _Measured) -> bool:
    return one.identifiers == other.identifiers and all(map(np.array_equal, one.targets, other.targets))


def pairs_of(first: Path, second: Path, split: str | None) -> list[tuple[Seeds, Seeds]]:
    """Evaluations of two runs on the same split, each with its seeds.

    Raises:
        ConfigError: a directory holds none or those of several runs, or the two have none in common.
        CheckpointError: a file is no evaluation.
    """
    ours, theirs = (_groups_of_one_run(directory) for directory in (first, second))
    pairs = [(ours[key], theirs[key]) for key in ours if key in theirs and split in (None, key[2])]
    if not pairs:
        of_split = "" if split is None else f" {split}"
        raise ConfigError(f"{first} and {second} have no evaluation{of_split} of the same task and data in common")
    return pairs


def _groups_of_one_run(directory: Path) -> dict[tuple[str, str, str], Seeds]:
    """By task, data and split."""
    evaluations = read_evaluations([directory])
    runs = sorted({str(evaluation.directory) for evaluation in evaluations})
    if len(runs) > 1:
        raise ConfigError(f"{directory} holds several runs ({', '.join(runs[:3])} ...); name one of them")
    return {(r.task, r.data_name, r.split): group for group in groups_of(evaluations) for r in [group[0].record]}


def table(pairs: Sequence[tuple[Seeds, Seeds]], bootstrap: Bootstrap, all_metrics: bool) -> str:
    """Markdown: which run is which, then a line a metric.

    Raises:
        ConfigError, DataError: see :func:`compared`.
    """
    names = [f"{name}: {_shown_model(seeds)}" for name, seeds in zip(("first", "second"), pairs[0], strict=True)]
    lines = [", ".join(names), "", f"| {' | '.join(_COLUMNS)} |", f"|{':--|' * 4}{'--:|' * 4}"]
    for first, second in pairs:
        titles = dict(headlines_of(first))
        for difference in compared(first, second, bootstrap):
            if all_metrics or difference.name in titles:
                lines.append(_line(first[0], titles.get(difference.name, difference.name), difference))
    return "\n".join(lines)


def _shown_model(seeds: Seeds) -> str:
    return f"{seeds[0].directory}" + (f" (mean of {len(seeds)} seeds)" if len(seeds) > 1 else "")


def _line(evaluation: Evaluated, title: str, difference: Difference) -> str:
    record = evaluation.record
    interval = difference.interval
    cells = (
        record.task,
        shown_data(record.data_name, record.is_simulated),
        f"{record.split} ({record.proteins:,})",
        title,
        shown_number(difference.first),
        shown_number(difference.second),
        shown_number(difference.value, "+"),
        "-" if interval is None else f"[{', '.join(shown_number(end, '+') for end in interval)}]",
    )
    return f"| {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("second", type=Path, metavar="OTHER_RUN", help="another's, of the same task")
    parser.add_argument("--split", help="this one alone (default: all that both were evaluated on)")
    parser.add_argument(
        "--all_metrics",
        action="store_true",
        help="not those of the report's table alone; the loss and accuracy_all_residues can't be had from predictions",
    )
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples (default %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of the resamples (default %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    bootstrap = Bootstrap(options.bootstrap, options.seed)
    print(table(pairs_of(options.first, options.second, options.split), bootstrap, options.all_metrics))


if __name__ == "__main__":
    sys.exit(run_cli(main))
