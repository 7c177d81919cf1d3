#!/usr/bin/env python
"""Two finetuned models on the same proteins: is one better by more than chance?

    python scripts/compare.py RUN OTHER_RUN [--split SPLIT] [--all_metrics]

Both runs must have been evaluated on the split (tape_eval.py, which leaves eval_SPLIT.json and results_SPLIT.pkl).
Printed is each metric of both, and RUN minus OTHER_RUN with a 95 % interval of that difference: a paired bootstrap over
the proteins.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from scripts.report_figures import load_results, shape_of
from scripts.report_rows import HEADLINES, Evaluated, read_evaluations, shown_data
from tape.errors import ConfigError, DataError, run_cli
from tape.metrics import SHAPE_METRICS, Bootstrap
from tape.metrics.paired import Difference, paired_differences
from tape.tasks import TaskShape

# Of the other shapes results_SPLIT.pkl keeps the best classes alone, which can't be measured again.
_SHAPES = (TaskShape.VALUE, TaskShape.SEQUENCE_CLASS, TaskShape.RESIDUE_CLASS, TaskShape.RESIDUE_PAIR)
_HEAD = ("task", "data", "split (proteins)", "metric", "first", "second", "difference", "interval")


def compared(first: Evaluated, second: Evaluated, bootstrap: Bootstrap) -> list[Difference]:
    """Differences of all metrics between two evaluations.

    Raises:
        ConfigError: the task's predictions can't be compared, or they are not there.
        DataError: they are not of the same proteins with the same labels.
    """
    shape = shape_of(first.record.task)
    if shape is None or shape not in _SHAPES:
        raise ConfigError(f"{first.file}: predictions of {first.record.task} are not kept in a form to compare")
    results = [_results(evaluation) for evaluation in (first, second)]
    if not all(map(_same_protein, *results)) or len(results[0]) != len(results[1]):
        raise DataError(
            f"{first.results_file} and {second.results_file} are not of the same proteins with the same labels"
        )
    metrics = SHAPE_METRICS[shape]
    rows, others = ([metrics.measure(one["prediction"], one["target"]) for one in of_one] for of_one in results)
    return paired_differences(rows, others, metrics, bootstrap)


def _results(evaluation: Evaluated) -> list[dict[str, Any]]:
    results = load_results(evaluation)
    if not results:
        raise ConfigError(f"{evaluation.results_file}: no predictions there; evaluate the run again with tape_eval.py")
    return results


def _same_protein(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["id"] == other["id"] and np.array_equal(one["target"], other["target"])


def pairs_of(first: Path, second: Path, split: str | None) -> list[tuple[Evaluated, Evaluated]]:
    """Evaluations of two runs on the same split.

    Raises:
        ConfigError: there is none.
    """
    found = [read_evaluations([directory]) for directory in (first, second)]
    pairs = [
        (one, other)
        for one in found[0]
        for other in found[1]
        if _what(one) == _what(other) and split in (None, one.record.split)
    ]
    if not pairs:
        of_split = "" if split is None else f" {split}"
        raise ConfigError(f"{first} and {second} have no evaluation{of_split} of the same task and data in common")
    return pairs


def _what(evaluation: Evaluated) -> tuple[str, str, str, int | None]:
    record = evaluation.record
    return record.task, record.data_name, record.split, evaluation.seed


def table(pairs: Sequence[tuple[Evaluated, Evaluated]], bootstrap: Bootstrap, all_metrics: bool) -> str:
    """Markdown: a line a metric."""
    lines = [f"| {' | '.join(_HEAD)} |", f"|{':--|' * 4}{'--:|' * 4}"]
    for first, second in pairs:
        record = first.record
        titles = dict(HEADLINES.get(record.task, ()))
        for difference in compared(first, second, bootstrap):
            if not all_metrics and difference.name not in titles:
                continue
            low_high = difference.interval
            cells = (
                record.task,
                shown_data(record.data_name, record.is_simulated),
                f"{record.split} ({record.proteins:,})",
                titles.get(difference.name, difference.name),
                f"{difference.first:.3f}",
                f"{difference.second:.3f}",
                f"{difference.value:+.3f}",
                "" if low_high is None else f"[{low_high[0]:+.3f}, {low_high[1]:+.3f}]",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("second", type=Path, metavar="OTHER_RUN", help="another's, of the same task")
    parser.add_argument("--split", help="this one alone (default: all that both were evaluated on)")
    parser.add_argument("--all_metrics", action="store_true", help="not only those of the report's table")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples (default %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of the resamples (default %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    bootstrap = Bootstrap(options.bootstrap, options.seed)
    print(table(pairs_of(options.first, options.second, options.split), bootstrap, options.all_metrics))


if __name__ == "__main__":
    sys.exit(run_cli(main))
