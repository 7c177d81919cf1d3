"""Runs that differ in their seed alone, as one result: ``summary.json`` and ``summary.csv`` above their directories.

``summary.json``, schema "proteinlm-seeds" version 1: task, model, runs [{seed, directory, epoch, metrics {split ->
{name -> value}}}] and summary {split -> {name -> {mean, std, n}}}. ``std`` is the sample standard deviation (divided by
n - 1), null for one run. Values of ``valid`` are those of each run's best epoch, with which the other splits are
evaluated too. ``summary.csv`` has a line a split and metric: split, metric, mean, std, n, and each seed's value.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.evaluation.records import finite
from tape.io.atomic import write_json, write_text

from .run_directory import read_history, saved_epoch

SCHEMA = "proteinlm-seeds"
SCHEMA_VERSION = 1

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class SeedRun:
    """One run.

    Attributes:
        seed: its seed.
        path: its directory.
        evaluated: split -> metrics of its best epoch.
    """

    seed: int
    path: Path
    evaluated: Scores


def write_summary(directory: Path, task: str, model: str, runs: Sequence[SeedRun]) -> list[str]:
    """Write both files; returns a line for each split and metric."""
    rows = [_row(run) for run in runs]
    summary = _summarise([row["metrics"] for row in rows])
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
    epoch = int(saved_epoch(run.path).name)
    valid = next(record["valid"] for record in read_history(run.path) if record["epoch"] == epoch)
    metrics = {**({} if valid is None else {"valid": valid}), **run.evaluated}
    numbers = {
        split: {name: None if value is None else finite(value) for name, value in values.items()}
        for split, values in metrics.items()
    }
    return {"seed": run.seed, "directory": run.path.name, "epoch": epoch, "metrics": numbers}


def _summarise(runs: list[dict[str, dict[str, float | None]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Split -> metric -> spread; a run whose validation gave no number has none of ``valid``."""
    splits = sorted({split: None for run in runs for split in run}, key=lambda split: split != "valid")
    names = {split: dict.fromkeys(name for run in runs for name in run.get(split, {})) for split in splits}
    return {
        split: {name: spread([run.get(split, {}).get(name) for run in runs]) for name in own}
        for split, own in names.items()
    }


def spread(values: list[float | None]) -> dict[str, Any]:
    """``mean``, ``std`` and ``n`` over the runs that have the number (None: has not)."""
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
