#!/usr/bin/env python
"""Evaluations -> one table (Markdown and CSV) and pictures.

    python scripts/report.py RESULTS... [--pretraining SAVE_DIR] --out DIR

RESULTS are directories of runs, searched for eval_SPLIT.json. DIR gets table.md, table.csv, finetuning.png,
contact_map.png where there is a contact prediction, and with --pretraining pretraining.png. Simulated data are marked
wherever they are shown.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.atomic_files import atomic_directory, write_text
from tape.errors import CheckpointError, ConfigError, run_cli
from tape.run_directory import BEST_NAME, saved_epoch

# task -> metrics of the table: key in eval_SPLIT.json, what it is called
HEADLINES: dict[str, tuple[tuple[str, str], ...]] = {
    "secondary_structure": (("accuracy", "3-class accuracy"),),
    "contact_prediction": (
        ("precision_at_l5", "P@L/5, separation >= 6"),
        ("precision_at_l5_medium_long", "P@L/5, separation >= 12"),
    ),
    "remote_homology": (("accuracy", "top-1 accuracy"),),
    "fluorescence": (("spearmanr", "Spearman's rho"),),
    "stability": (("spearmanr", "Spearman's rho"),),
    "masked_language_modeling": (("perplexity", "perplexity"), ("accuracy", "accuracy")),
}
# suffix of a run's directory -> column; others keep their suffix
COLUMNS = {"onehot": "one-hot", "random": "random weights", "pretrained": "pretrained"}


@dataclass(frozen=True)
class Evaluated:
    """One eval_SPLIT.json.

    Attributes:
        file: where it lies.
        run: directory of the run it belongs to.
        column: what the model is called in the table.
        values: metric -> (value or None, n).
    """

    file: Path
    run: Path
    column: str
    task: str
    split: str
    data: str
    simulated: bool
    proteins: int
    values: dict[str, tuple[float | None, int]]


@dataclass(frozen=True)
class Row:
    """One line of the table: a metric of a split, for every model."""

    task: str
    data: str
    simulated: bool
    split: str
    proteins: int
    metric: str
    values: dict[str, float | None]


def read_evaluations(directories: Iterable[Path]) -> list[Evaluated]:
    """The evaluations below the directories; of a run with several evaluated epochs, the one best.json names.

    Raises:
        ConfigError: there is none, a directory is missing, or two models claim one cell of the table.
        CheckpointError: a file is no evaluation of the known schema.
    """
    found = []
    for directory in directories:
        if not directory.is_dir():
            raise ConfigError(f"{directory}: no such directory")
        found += [_read_evaluation(file) for file in sorted(directory.rglob("eval_*.json"))]
    if not found:
        raise ConfigError(f"no eval_SPLIT.json below {', '.join(map(str, directories))}; run tape_eval.py first")
    return _one_a_cell([evaluation for evaluation in found if _is_chosen_epoch(evaluation, found)])


def _is_chosen_epoch(evaluation: Evaluated, all_of_them: Sequence[Evaluated]) -> bool:
    """Whether the evaluated epoch is its run's only one, or its best on validation data."""
    directory = evaluation.file.parent
    epochs = {other.file.parent for other in all_of_them if other.run == evaluation.run}
    best = saved_epoch(evaluation.run, (BEST_NAME,))
    return len(epochs) == 1 or best not in epochs or directory == best


def _one_a_cell(evaluations: Sequence[Evaluated]) -> list[Evaluated]:
    """Refuse two models of one name, which would hide one another."""
    cells: dict[tuple[str, str, str, str], Evaluated] = {}
    for evaluation in evaluations:
        cell = (evaluation.task, evaluation.data, evaluation.split, evaluation.column)
        other = cells.setdefault(cell, evaluation)
        if other is not evaluation:
            raise ConfigError(
                f"{other.file} and {evaluation.file} both are {evaluation.task} {evaluation.split} of"
                f" {evaluation.column!r}; give one of them"
            )
    return list(cells.values())


def _read_evaluation(file: Path) -> Evaluated:
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        if (report["schema"], report["version"]) != ("proteinlm-eval", 1):
            raise CheckpointError(f"{file}: schema {report['schema']} {report['version']}, not proteinlm-eval 1")
        run = next((parent for parent in file.parents if (parent / "args.json").is_file()), file.parent)
        suffix = run.name.removeprefix(f"{report['task']}_{report['model']}_")
        return Evaluated(
            file=file,
            run=run,
            column=COLUMNS.get(suffix, suffix),
            task=report["task"],
            split=report["split"],
            data=report["data"]["name"],
            simulated=bool(report["data"].get("simulated")),
            proteins=report["proteins"],
            values={metric["name"]: (metric["value"], metric["n"]) for metric in report["metrics"]},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: not an evaluation file ({error!r})") from error


def make_rows(evaluations: Sequence[Evaluated]) -> list[Row]:
    """Rows in the order of HEADLINES, one a data set, split and metric."""
    rows = []
    for task, metrics in HEADLINES.items():
        sets = dict.fromkeys((e.data, e.simulated, e.split) for e in evaluations if e.task == task)
        for data, simulated, split in sets:
            here = [e for e in evaluations if (e.task, e.data, e.split) == (task, data, split)]
            for key, title in metrics:
                values = {e.column: e.values[key][0] for e in here if key in e.values}
                rows.append(Row(task, data, simulated, split, here[0].proteins, title, values))
    return rows


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Known columns first, in their order, then the others as met."""
    met = dict.fromkeys(column for row in rows for column in row.values)
    known = [column for column in COLUMNS.values() if column in met]
    return known + [column for column in met if column not in known]


def markdown_table(rows: Sequence[Row]) -> str:
    """The table; the best of each row is bold where there is more than one."""
    columns = columns_of(rows)
    lines = [
        "| task | data | split (proteins) | metric | " + " | ".join(columns) + " |",
        "|:--|:--|:--|:--|" + "--:|" * len(columns),
    ]
    for row in rows:
        numbers = [value for value in row.values.values() if value is not None]
        best = None
        if len(numbers) > 1:
            best = min(numbers) if row.metric == "perplexity" else max(numbers)
        cells = [_cell(row.values.get(column), best) for column in columns]
        data = f"{row.data} (simulated)" if row.simulated and "simulated" not in row.data.lower() else row.data
        lines.append(
            f"| {row.task} | {data} | {row.split} ({row.proteins}) | {row.metric} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def _cell(value: float | None, best: float | None) -> str:
    if value is None:
        return "-"
    return f"**{value:.3f}**" if value == best else f"{value:.3f}"


def csv_table(rows: Sequence[Row]) -> str:
    columns = columns_of(rows)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["task", "data", "simulated", "split", "proteins", "metric", *columns])
    for row in rows:
        values = [row.values.get(column) for column in columns]
        writer.writerow([row.task, row.data, row.simulated, row.split, row.proteins, row.metric, *values])
    return stream.getvalue()


def read_records(file: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="directories of finetuning runs")
    parser.add_argument(
        "--pretraining", type=Path, metavar="SAVE_DIR", help="directory with pretraining's metrics.jsonl"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="made anew")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    evaluations = read_evaluations(options.results)
    rows = make_rows(evaluations)
    with atomic_directory(options.out, overwrite=True) as folder:
        write_text(folder / "table.md", markdown_table(rows))
        write_text(folder / "table.csv", csv_table(rows))
        _draw(folder, evaluations, options.pretraining)
    print(markdown_table(rows))


def _draw(folder: Path, evaluations: Sequence[Evaluated], pretraining: Path | None) -> None:
    try:
        from scripts import report_pictures as pictures
    except ImportError as error:
        print(f"no pictures: {error}; install the extra with pip install 'proteinlm[plots]'", file=sys.stderr)
        return
    runs = {evaluation.run: evaluation for evaluation in evaluations}
    histories = [
        (e.task, e.column, e.simulated, read_records(run / "metrics.jsonl"))
        for run, e in runs.items()
        if (run / "metrics.jsonl").is_file()
    ]
    if histories:
        pictures.draw_finetuning(folder / "finetuning.png", histories)
    if pretraining is not None:
        pictures.draw_pretraining(folder / "pretraining.png", read_records(pretraining / "metrics.jsonl"))
    contacts = [e for e in evaluations if e.task == "contact_prediction"]
    if contacts:
        shown = {e.column: e for e in contacts if e.split == contacts[0].split}
        order = [column for column in COLUMNS.values() if column in shown]
        order += [column for column in shown if column not in order]
        files = {column: shown[column].file.parent / f"results_{shown[column].split}.pkl" for column in order}
        pictures.draw_contact_maps(folder / "contact_map.png", files, contacts[0].data)


if __name__ == "__main__":
    sys.exit(run_cli(main))
