"""The rows of a report's table: the metrics of tasks of one's own, and many models."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest

from tape.report import command as report
from tape.report import rows as report_rows
from tape.targets import Target
from tape.tasks import TaskType
from tests.support.evaluated_runs import Page, add_run


def rows_of(directory: Path) -> list[report_rows.ReportRow]:
    return report_rows.make_rows(report_rows.read_evaluations([directory]))


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (("spearmanr", "pearsonr", "mse", "mae", "rmse", "r2"), ["Spearman's rho", "R2", "MAE", "RMSE"]),
        (("accuracy", "macro_f1", "mcc", "auroc", "auprc"), ["accuracy", "macro F1", "MCC", "AUROC", "AUPRC"]),
        (("accuracy", "top_5_accuracy", "macro_f1", "mcc"), ["accuracy", "macro F1", "MCC"]),
        (("macro_f1", "micro_f1", "auroc", "auprc"), ["macro F1", "micro F1", "AUROC", "AUPRC"]),
    ],
)
def test_a_task_of_ones_own_is_reported_by_the_metrics_of_its_type(
    tmp_path: Path, measured: tuple[str, ...], expected: list[str]
) -> None:
    add_run(tmp_path, "my_task", "transformer", "x", "test", False, loss=1.0, **dict.fromkeys(measured, 0.5))
    assert [row.metric for row in rows_of(tmp_path)] == expected


def test_the_lowest_error_is_the_best(tmp_path: Path) -> None:
    for name, error in (("x", 3.0), ("y", 2.0)):
        values = {"spearmanr": 0.5, "r2": 0.1, "mae": error, "rmse": error}
        add_run(tmp_path, "my_task", "transformer", name, "test", False, **values)
    assert [report_rows.best_of(row) for row in rows_of(tmp_path)] == [0.5, 0.1, 2.0, 2.0]


def trained_on(directory: Path, proteins: int, available: int) -> None:
    file = directory / "eval_test.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "training": {"proteins": proteins, "available": available}}))


def test_models_trained_on_a_part_of_the_proteins_are_named_below_the_table(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for task in ("stability", "fluorescence"):
        for name, proteins in (("random", 53_614), ("pretrained", 5_361), ("frozen", None)):
            run = add_run(root, task, "transformer", name, "test", False, "TAPE", spearmanr=0.5)
            if proteins is not None:
                trained_on(run, proteins, 53_614)
    note = "Stability: pretrained on 5,361 of 53,614 proteins; Fluorescence: pretrained on 5,361 of 53,614 proteins"
    note = "; ".join(reversed(note.split("; ")))  # in the order of the table
    expected = f"Trained on a part of the training proteins: {note}."
    assert report_rows.markdown_table(rows_of(root)).endswith(f"\n\n{expected}\n")
    (header, *lines) = csv.reader(io.StringIO(report_rows.csv_table(rows_of(root))))
    assert [line[header.index("pretrained trained on")] for line in lines] == ["5,361 of 53,614 proteins"] * 2
    assert "random trained on" not in header
    report.main([str(root), "--out", str(tmp_path / "report")])
    assert expected in (tmp_path / "report" / "report.html").read_text()
    for file in root.glob("*_pretrained/*/eval_test.json"):
        trained_on(file.parent, 53_614, 53_614)
    assert "Trained on" not in report_rows.markdown_table(rows_of(root))


def test_models_of_several_splits_of_a_task_are_all_named(tmp_path: Path) -> None:
    for name, split, proteins in (("x", "ts115", 20), ("y", "cb513", 30)):
        run = add_run(tmp_path, "secondary_structure", "transformer", name, split, False, accuracy=0.5)
        file = run / f"eval_{split}.json"
        training = {"proteins": proteins, "available": 90}
        file.write_text(json.dumps({**json.loads(file.read_text()), "training": training}))
    (note,) = report_rows.notes_of(rows_of(tmp_path))
    assert note.startswith("Trained on a part of the training proteins: Secondary structure: ")
    assert "x on 20 of 90 proteins" in note
    assert "y on 30 of 90 proteins" in note


def add_many_runs(root: Path, number: int) -> Path:
    for run in range(number):
        values = {"accuracy": run / 100, "macro_f1": 0.5, "mcc": 0.4 if run else math.nan}
        add_run(root, "my_task", "transformer", f"run {run}", "test", False, **values)
    return root


def test_many_models_have_rows_instead_of_columns(tmp_path: Path) -> None:
    few = add_many_runs(tmp_path / "few", report_rows.MOST_COLUMNS)
    assert "| metric | run 0 | run 1 |" in report_rows.markdown_table(rows_of(few))
    many = add_many_runs(tmp_path / "many", report_rows.MOST_COLUMNS + 1)
    text = report_rows.markdown_table(rows_of(many))
    assert "| my_task | a <set> | test (5) | accuracy | run 5 | **0.050** |" in text
    report.main([str(many), "--out", str(tmp_path / "report")])
    parsed = Page((tmp_path / "report" / "report.html").read_text())
    heads = [a.get("title") for tag, a in parsed.attributes if tag == "th" and a.get("title")]
    assert heads == [f"what {name} is (n = 5)" for name in ("accuracy", "macro_f1", "mcc")]  # in the table of all
    values = [a.get("data-value") for tag, a in parsed.attributes if tag == "td" and a.get("data-column") == "MCC"]
    assert values == [None, *["0.4"] * report_rows.MOST_COLUMNS]  # sorted as numbers, the undefined one last


@pytest.mark.parametrize(
    ("columns", "task_type", "expected"),
    [
        (("kcat",), TaskType.VALUE, "kcat"),
        (("Tm", "kcat"), TaskType.VALUE, "Tm, kcat"),
        (("tertiary",), TaskType.RESIDUE_PAIR, "contacts"),
        (None, None, "My table kcat"),
    ],
)
def test_a_table_of_ones_own_is_named_by_its_columns(
    tmp_path: Path, columns: tuple[str, ...] | None, task_type: TaskType, expected: str
) -> None:
    """As they are written: kcat has no capital letter."""
    directory = add_run(tmp_path, "my_table_kcat", "transformer", "x", "test", False, loss=1.0, rmse=0.5)
    if columns is not None:
        file = directory / "eval_test.json"
        target = Target("my_table_kcat", task_type, columns).to_dict()
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "config": {**content["config"], "target": target}}))
    assert next(iter(rows_of(tmp_path))).heading == expected
    report.main([str(tmp_path), "--out", str(tmp_path / "report")])
    page = (tmp_path / "report" / "report.html").read_text()
    assert f'<th scope="row">{expected}<br>' in page
    assert f"<b>{expected.replace('My', 'my')}</b>: a &lt;set&gt;" in page  # below the curves
    assert "text-transform" not in page
