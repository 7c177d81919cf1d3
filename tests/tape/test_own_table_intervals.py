"""The intervals of values that a model of a user's table predicts."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import tape
from tape.inference.predict import Prediction
from tape.inference.prediction_files import PredictionFiles
from tape.main import run_eval, run_train
from tape.tasks import TaskType
from tests.support.leakage_tables import write_leakage

QUIET = ["--log_level", "40"]


def write_table(path: Path, count: int, columns: Sequence[str]) -> Path:
    rng = np.random.default_rng(1)
    lines = [f"id,sequence,{','.join(columns)}"]
    for number in range(count):
        sequence = "".join(rng.choice(list("AAACDEFGHIK"), 15))
        value = 50 + 3 * sequence.count("A") + rng.normal()
        cells = [f"{value:.3f}", "" if number % 5 else f"{value / 7:.3f}"][: len(columns)]
        lines.append(f"p{number},{sequence},{','.join(cells)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def train(table: Path, *options: object) -> Path:
    words = ["onehot", "--data", str(table), "--time_or_name", "t", "--output_dir", str(table.parent / "results")]
    return run_train([*words, *QUIET, *map(str, options)])


def predict(run: Path, table: Path, out: Path) -> list[dict[str, str]]:
    run_eval(["onehot", str(run), "--predict", str(table), "--predict_out", str(out), *QUIET])
    with out.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_interval_is_that_of_the_errors_on_valid(tmp_path: Path) -> None:
    table = write_table(tmp_path / "my.csv", 120, ["Tm"])
    run = train(table, "--target", "Tm", "--num_train_epochs", 3, "--learning_rate", "1e-2")
    rows = predict(run, table, tmp_path / "p.csv")
    widths = {round(float(row["upper_90"]) - float(row["prediction"]), 2) for row in rows}
    widths |= {round(float(row["prediction"]) - float(row["lower_90"]), 2) for row in rows}
    run_eval(["onehot", str(run), "--split", "valid", *QUIET])
    _, results = pickle.loads((run / "results.pkl").read_bytes())
    errors = sorted(abs(one["prediction"].item() - one["target"].item()) for one in results)
    assert len(errors) == 12
    expected = errors[11]  # the 12th of 12: 0.9 x 13 = 11.7
    assert max(widths) - min(widths) <= 0.011
    assert max(widths) == pytest.approx(expected, abs=0.011)


def test_the_evaluation_tells_how_many_values_are_inside(tmp_path: Path) -> None:
    table = write_table(tmp_path / "my.csv", 120, ["Tm"])
    run = train(table, "--target", "Tm", "--num_train_epochs", 2)
    rows = {row["id"]: row for row in predict(run, table, tmp_path / "p.csv")}
    metrics, results = pickle.loads((run / "results.pkl").read_bytes())  # of test
    inside = [
        float(rows[one["id"]]["lower_90"]) <= one["target"].item() <= float(rows[one["id"]]["upper_90"])
        for one in results
    ]
    assert metrics["coverage_90"] == pytest.approx(np.mean(inside))
    frame = tape.load(run).predict(["ACDAAK"])
    assert frame["lower_90"][0] < frame["prediction"][0] < frame["upper_90"][0]


def test_each_of_several_targets_has_its_own_or_none(tmp_path: Path) -> None:
    table = write_table(tmp_path / "my.csv", 120, ["Tm", "kcat"])  # valid has 12 values of Tm, and about 2 of kcat
    run = train(table, "--target", "Tm", "kcat", "--num_train_epochs", 1)
    (row, *_) = predict(run, table, tmp_path / "p.csv")
    assert list(row) == ["id", "length", "prediction_Tm", "lower_90_Tm", "upper_90_Tm", "prediction_kcat"]
    metrics, _ = pickle.loads((run / "results.pkl").read_bytes())
    assert "coverage_90_Tm" in metrics
    assert "coverage_90_kcat" not in metrics


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (40, ("--num_train_epochs", 1), "without lower_90 and upper_90 of Tm: fewer than 9 proteins of valid"),
        (120, ("--num_train_epochs", 1, "--eval_freq", 0), "the model has none, since no validation followed"),
    ],
)
def test_the_log_says_why_there_is_none(
    tmp_path: Path, count: int, options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "my.csv", count, ["Tm"])
    run = train(table, "--target", "Tm", *options)
    capsys.readouterr()
    run_eval(["onehot", str(run), "--predict", str(table), "--predict_out", str(tmp_path / "p.csv")])
    assert message in capsys.readouterr().err
    assert (tmp_path / "p.csv").read_text(encoding="utf-8").startswith("id,length,prediction\n")


def test_a_narrow_interval_around_a_large_value_is_not_rounded_away(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path / "p.csv", "task", TaskType.VALUE, half_widths=(0.398,))
    prediction = Prediction(0, "a", "MKV", np.array([130002.4]))
    files.write(files.keep([prediction]), tmp_path)
    assert (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[1] == "a,3,130002.4,130002.002,130002.798"


def test_coverage_is_that_of_held_out_proteins(tmp_path: Path) -> None:
    run = train(write_table(tmp_path / "my.csv", 120, ["Tm"]), "--target", "Tm", "--num_train_epochs", 1)
    for split in ("train", "valid", "all"):
        data = ["--data", str(tmp_path / "my.csv")] if split == "all" else []
        assert "coverage_90" not in run_eval(["onehot", str(run), "--split", split, *data, *QUIET])
    assert "coverage_90" in run_eval(["onehot", str(run), "--split", "test", *QUIET])
    (file,) = run.glob("0/eval_test.json")
    metrics = {one["name"]: one for one in json.loads(file.read_text(encoding="utf-8"))["metrics"]}
    assert metrics["coverage_90"]["interval"] is not None


def test_an_epoch_that_was_not_validated_has_none(tmp_path: Path) -> None:
    table = write_table(tmp_path / "my.csv", 120, ["Tm"])
    options = ("--num_train_epochs", 3, "--eval_freq", 2, "--save_freq", 1, "--patience", 0)
    run = train(table, "--target", "Tm", *options)
    stored = [json.loads((run / str(epoch) / "config.json").read_text())["target"] for epoch in range(3)]
    assert ["half_width_90" in target for target in stored] == [False, True, False]


def test_coverage_is_part_of_the_bins_of_identity(tmp_path: Path) -> None:
    table = write_table(tmp_path / "my.csv", 120, ["Tm"])
    run = train(table, "--target", "Tm", "--num_train_epochs", 1)
    identities = write_leakage(table, tmp_path / "leakage.tsv", [(None, 95.0)[place % 2] for place in range(120)])
    overall = run_eval(["onehot", str(run), "--split", "test", "--leakage", str(identities), *QUIET])["coverage_90"]
    (file,) = run.glob("0/eval_test.json")
    (reference,) = json.loads(file.read_text(encoding="utf-8"))["leakage"]["references"]
    found = [(one["proteins"], metric) for one in reference["bins"] for metric in one["metrics"]]
    covered = [(proteins, metric["value"]) for proteins, metric in found if metric["name"] == "coverage_90"]
    assert len(covered) == 2
    total = sum(proteins for proteins, _ in covered)
    assert sum(proteins * share for proteins, share in covered) / total == pytest.approx(overall)
