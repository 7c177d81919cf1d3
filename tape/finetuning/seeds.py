"""Summary of runs that differ only in their seed: ``summary.json`` and ``summary.csv`` above their directories.

``summary.json``, schema "proteinlm-seeds" version 1: task, model, runs [{seed, directory, epoch, metrics {split ->
{name -> value}}}] and summary {split -> {name -> {mean, std, n}}}. ``std`` is the sample standard deviation (divided by
n - 1), null for a single run. Values of ``valid`` are those of each run's best saved epoch, which is also evaluated on
the other splits. A loss whose unit differs between runs is in ``runs`` only. ``summary.csv`` has a line per split and
metric: split, metric, mean, std, n, and each seed's value.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.evaluation.records import finite
from tape.io.run_layout import resolve_model_directory
from tape.io.writing import write_json, write_text

from .run_directory import read_history

SCHEMA = "proteinlm-seeds"
SCHEMA_VERSION = 1

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class SeedRun:
    """The result of one run.

    Attributes:
        seed: seed of the run.
        path: directory of the run.
        evaluated: split -> metrics of the best saved epoch.
    """

    seed: int
    path: Path
    evaluated: Scores


def write_summary(
    directory: Path, task: str, model: str, runs: Sequence[SeedRun], without: Collection[str] = ()
) -> list[str]:
    """Write both files; returns a line for the log per split and metric.

    Args:
        directory: that of the runs.
        task, model: names.
        runs: the runs.
        without: metrics that have another unit in each run, so that their mean has no meaning.
    """
    rows = [_row(run) for run in runs]
    summary = {
        split: {name: found for name, found in metrics.items() if name not in without}
        for split, metrics in _summarize([row["metrics"] for row in rows]).items()
    }
    record = {"schema": SCHEMA, "version": SCHEMA_VERSION, "task": task, "model": model, "runs": rows}
    write_json(directory / "summary.json", {**record, "summary": summary})
    write_text(directory / "summary.csv", _as_csv(rows, summary))
    return [
        f"{split} {name}: {found['mean']:.4g}" + ("" if found["std"] is None else f" +- {found['std']:.2g}")
        for split, metrics in summary.items()
        for name, found in metrics.items()
        if found["mean"] is not None
    ]


def _row(run: SeedRun) -> dict[str, Any]:
    epoch = int(resolve_model_directory(run.path).name)
    valid = next(record["valid"] for record in read_history(run.path) if record["epoch"] == epoch)
    metrics = {**({} if valid is None else {"valid": valid}), **run.evaluated}
    numbers = {
        split: {name: None if value is None else finite(value) for name, value in values.items()}
        for split, values in metrics.items()
    }
    return {"seed": run.seed, "directory": run.path.name, "epoch": epoch, "metrics": numbers}


def _summarize(runs: list[dict[str, dict[str, float | None]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Split -> metric -> spread. A run without validation has no ``valid``."""
    splits = sorted({split: None for run in runs for split in run}, key=lambda split: split != "valid")
    names = {split: dict.fromkeys(name for run in runs for name in run.get(split, {})) for split in splits}
    return {
        split: {name: spread([run.get(split, {}).get(name) for run in runs]) for name in own}
        for split, own in names.items()
    }


def spread(values: list[float | None]) -> dict[str, Any]:
    """``mean``, ``std`` and ``n`` over the runs that have the number; None is a run without it."""
    numbers = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(numbers) if numbers else None,
        "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "n": len(numbers),
    }


def _as_csv(rows: list[dict[str, Any]], summary: dict[str, dict[str, dict[str, Any]]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["split", "metric", "mean", "std", "n", *(f"seed_{row['seed']}" for row in rows)])
    for split, metrics in summary.items():
        for name, found in metrics.items():
            own = [row["metrics"].get(split, {}).get(name) for row in rows]
            writer.writerow([split, name, found["mean"], found["std"], found["n"], *own])
    return stream.getvalue()
