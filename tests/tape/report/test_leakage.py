"""The report's scores in bins of identity to training data."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from tape.evaluation.leakage_scores import BinScores, Leakage, ReferenceScores
from tape.evaluation.records import EvaluationRecord, write_record
from tape.leakage.bins import BINS
from tape.leakage.table import ProteinFile
from tape.metrics import Metric
from tape.report import command as report
from tape.report.leakage import csv_leakage, leakage_rows, leakage_table, markdown_leakage
from tape.report.rows import read_evaluations

COUNTS = ((4, 3), (1, 0), (0, 0), (2, 0))  # proteins, and those without a hit, of each bin


def leakage_of(name: str, scale: float) -> Leakage:
    bins = tuple(
        BinScores(one, proteins, no_hit, metrics_of(scale * number, proteins) if proteins else ())
        for number, (one, (proteins, no_hit)) in enumerate(zip(BINS, COUNTS, strict=True), start=1)
    )
    return Leakage("ef", {"tool": "MMseqs2"}, (ReferenceScores(ProteinFile(name, name, "cd", 10), bins),))


def metrics_of(value: float, n: int) -> tuple[Metric, ...]:
    return (Metric("spearmanr", value, n, "a correlation", (value - 0.05, value + 0.05)), Metric("mse", 1.0, n, ""))


def add_run(root: Path, suffix: str, scale: float, leakage: Leakage | None) -> None:
    record = EvaluationRecord(
        "stability", "transformer", "test", {"name": "a <set>"}, 7, metrics_of(scale, 7), "fp32", leakage=leakage
    )
    run = root / f"stability_transformer_{suffix}"
    run.mkdir(parents=True)
    (run / "args.json").write_text("{}")
    write_record(run / "eval_test.json", record)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    root = tmp_path / "results"
    add_run(root, "pretrained", 0.2, leakage_of("train.<lmdb>", 0.2))
    add_run(root, "random", 0.1, leakage_of("train.<lmdb>", 0.1))
    add_run(root, "onehot", 0.1, None)
    return root


def test_each_bin_has_a_row_with_the_models(results: Path) -> None:
    evaluations = read_evaluations([results])
    rows = leakage_rows(evaluations)
    assert [(row.identity, row.proteins, row.no_hit) for row in rows] == [
        ("< 20 %", 4, 3),
        ("20 to 30 %", 1, 0),
        ("30 to 50 %", 0, 0),
        (">= 50 %", 2, 0),
    ]
    text = markdown_leakage(evaluations)
    assert "| training data | identity | proteins | random weights | pretrained |" in text
    assert "| stability | test | Spearman's rho | train.<lmdb> | < 20 % | 4 | 0.100 | 0.200 |" in text
    assert "| stability | test | Spearman's rho | train.<lmdb> | 30 to 50 % | 0 | - | - |" in text
    assert "- stability, test: 2 of 7 proteins have a relative of 30 % identity or more in train.<lmdb>" in text


def test_csv_has_full_precision_and_intervals(results: Path) -> None:
    records = list(csv.DictReader(io.StringIO(csv_leakage(read_evaluations([results])))))
    assert len(records) == 6  # three bins with proteins, two models
    last = records[-1]
    assert (last["identity"], last["proteins"], last["model"]) == (">= 50 %", "2", "pretrained")
    assert float(last["value"]) == pytest.approx(0.8)
    assert float(last["low"]) == pytest.approx(0.75)


def test_the_page_has_the_bins_with_intervals(results: Path) -> None:
    text = leakage_table(read_evaluations([results]))
    assert "train.&lt;lmdb&gt;" in text
    assert "4<br><small>3 without a hit</small>" in text
    assert "0.800<br><small>[0.750, 0.850]</small>" in text


def test_seeds_are_averaged(results: Path) -> None:
    for seed in (1, 2):
        run = results / "stability_transformer_three" / f"seed_{seed}"
        add_run(run, "x", 0.1 * seed, leakage_of("train.<lmdb>", 0.1 * seed))
        (run / "args.json").write_text("{}")
        (run / "eval_test.json").write_text((run / "stability_transformer_x" / "eval_test.json").read_text())
        for file in (run / "stability_transformer_x").iterdir():
            file.unlink()
    rows = leakage_rows(read_evaluations([results]))
    assert rows[0].values["three"].value == pytest.approx(0.15)
    assert "(2 seeds)" in markdown_leakage(read_evaluations([results]))


def test_models_with_different_tables_have_rows_of_their_own(results: Path) -> None:
    other = leakage_of("train.<lmdb>", 0.3)
    (scores,) = other.references
    bins = (replace(scores.bins[0], proteins=5), *scores.bins[1:])
    add_run(results, "mine", 0.3, replace(other, references=(replace(scores, bins=bins),)))
    rows = leakage_rows(read_evaluations([results]))
    assert [sorted(row.values) for row in rows if row.proteins == 4] == [["pretrained", "random weights"]]
    assert [sorted(row.values) for row in rows if row.proteins == 5] == [["mine"]]


def test_the_report_has_the_bins_in_all_files(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the second time, it replaces its own files
        report.main([str(results), "--out", str(tmp_path / "report")])
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "leakage.csv",
        "report.html",
        "table.csv",
        "table.md",
    ]
    assert "By the highest sequence identity" in (tmp_path / "report" / "table.md").read_text()
    assert "By the highest sequence identity" in capsys.readouterr().out
    assert "By identity to training data" in (tmp_path / "report" / "report.html").read_text()


def test_without_bins_the_report_is_as_before(results: Path, tmp_path: Path) -> None:
    only = [results / "stability_transformer_onehot"]
    assert markdown_leakage(read_evaluations(only)) == leakage_table(read_evaluations(only)) == ""
    report.main([str(only[0]), "--out", str(tmp_path / "report")])
    assert not (tmp_path / "report" / "leakage.csv").exists()
    assert "identity to training data" not in (tmp_path / "report" / "report.html").read_text()
