"""One model of several columns of values, some of which are missing, from training to the report."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from scipy import stats

import tape
from tape.errors import ConfigError, DataError
from tape.io.json_files import read_json_lines
from tape.main import run_eval, run_train
from tape.models.model_directory import load_state_dict
from tape.report.command import main as report
from tape.report.compare import main as compare

COLUMNS = ("Tm", "kcat")
WORDS = ["--time_or_name", "t", "--log_level", "40", "--learning_rate", "1e-2"]


def write_table(path: Path, changes: dict[tuple[int, str], str] | None = None) -> Path:
    """40 proteins with the columns Tm, kcat and place; every third lacks Tm, every fourth kcat, every twelfth both."""
    rng = np.random.default_rng(0)
    lines = ["id,sequence,Tm,kcat,place,split"]
    for number in range(40):
        sequence = "".join(rng.choice(list("AAAGKLDE"), 16))
        cells = {
            "Tm": f"{50 + sequence.count('A'):.2f}" if number % 3 else "",
            "kcat": f"{1e-3 * (2 + sequence.count('K')):.4f}" if number % 4 else "NA",
        }
        cells |= {column: text for (row, column), text in (changes or {}).items() if row == number}
        split = "test" if number % 5 == 4 else "valid" if number % 5 == 3 else "train"
        lines.append(f"p{number},{sequence},{cells['Tm']},{cells['kcat']},{'in' if number % 2 else 'out'},{split}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_table(tmp_path / "my.csv")


def train(path: Path, *options: object) -> Path:
    words = ["onehot", "--data", str(path), "--target", *COLUMNS, "--num_train_epochs", "2", *WORDS]
    return run_train([*words, *map(str, options)])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def target_in(run: Path) -> dict[str, Any]:
    (config,) = {path.read_text(encoding="utf-8") for path in run.glob("*/config.json")}
    found: dict[str, Any] = json.loads(config)["target"]
    return found


def test_each_target_is_standardized_on_its_own_training_values(table: Path) -> None:
    run = train(table)
    assert run.name == "my_Tm_kcat_onehot_t"
    target = target_in(run)
    assert (target["column"], target["type"]) == (list(COLUMNS), "regression")
    frame = pandas.read_csv(table)
    known = frame[frame.split == "train"]
    assert target["mean"] == pytest.approx([known[column].mean() for column in COLUMNS])
    assert target["std"] == pytest.approx([known[column].std(ddof=0) for column in COLUMNS])
    assert read_json(run / "args.json")["target"] == list(COLUMNS)


def test_metrics_of_each_target_are_those_of_its_column(table: Path) -> None:
    run = train(table)
    run_eval(["onehot", str(run), "--predict", str(table), "--predict_out", "p.csv", "--log_level", "40"])
    predicted = pandas.read_csv("p.csv")
    assert list(predicted.columns) == ["id", "length", "prediction_Tm", "prediction_kcat"]
    frame = pandas.read_csv(table).merge(predicted, on="id")
    test = frame[(frame.split == "test") & frame[list(COLUMNS)].notna().any(axis=1)]
    (file,) = run.glob("*/eval_test.json")
    found = read_json(file)
    metrics = {metric["name"]: metric for metric in found["metrics"]}
    assert found["proteins"] == len(test)
    for column in COLUMNS:
        known = test[test[column].notna()]
        error = known[column] - known[f"prediction_{column}"]
        assert metrics[f"mae_{column}"]["n"] == len(known) < len(test)
        assert metrics[f"mae_{column}"]["value"] == pytest.approx(error.abs().mean(), rel=1e-3)
        assert metrics[f"rmse_{column}"]["value"] == pytest.approx((error**2).mean() ** 0.5, rel=1e-3)
        spearman = stats.spearmanr(known[column], known[f"prediction_{column}"]).statistic
        assert metrics[f"spearmanr_{column}"]["value"] == pytest.approx(spearman)
        low, high = metrics[f"mae_{column}"]["interval"]
        assert low <= metrics[f"mae_{column}"]["value"] <= high
    for name in ("spearmanr", "pearsonr", "r2"):
        mean = np.mean([metrics[f"{name}_{column}"]["value"] for column in COLUMNS])
        assert metrics[name]["value"] == pytest.approx(mean)
    target = target_in(run)
    errors = [
        (test[column] - test[f"prediction_{column}"]) / std for column, std in zip(COLUMNS, target["std"], strict=True)
    ]
    assert metrics["loss"]["value"] == pytest.approx(np.nanmean(np.square(np.concatenate(errors))), rel=1e-3)
    _, results = pickle.loads((run / "results.pkl").read_bytes())
    assert all(one["prediction"].shape == one["target"].shape == (2,) for one in results)


@pytest.mark.parametrize(
    ("change", "is_visible"),
    [({(0, "place"): "x"}, False), ({(0, "Tm"): "?"}, False), ({(0, "kcat"): "n/a"}, False), ({(1, "Tm"): "90"}, True)],
)
def test_only_values_that_are_there_change_the_model(
    tmp_path: Path, table: Path, change: dict[tuple[int, str], str], is_visible: bool
) -> None:
    (tmp_path / "other").mkdir()
    first = train(table)
    second = train(write_table(tmp_path / "other" / "my.csv", change), "--output_dir", "other")
    one, other = (load_state_dict(next(run.glob("[0-9]*"))) for run in (first, second))
    assert all(torch.equal(one[name], other[name]) for name in one) is not is_visible


def test_a_resumed_run_equals_an_uninterrupted_one(table: Path, tmp_path: Path) -> None:
    run = train(table, "--save_freq", 1)
    weights = load_state_dict(run / "1")
    history = read_json_lines(run / "metrics.jsonl")
    shutil.rmtree(run / "1")
    words = ["onehot", "--from_pretrained", str(run / "0"), "--resume_from_checkpoint", "--log_level", "40"]
    assert run_train(words) == run.resolve()
    again = load_state_dict(run / "1")
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    resumed = read_json_lines(run / "metrics.jsonl")
    assert [record["valid"] for record in resumed] == [record["valid"] for record in history]
    assert "spearmanr_kcat" in resumed[1]["valid"]
    with pytest.raises(ConfigError, match="started with --target Tm kcat, which can't be changed"):
        run_train([*words, "--target", "Tm"])


def test_python_finetunes_and_predicts_several_targets(table: Path) -> None:
    frame = pandas.read_csv(table)
    options = {"num_train_epochs": 2, "learning_rate": 1e-2, "log_level": 40, "no_cuda": True, "time_or_name": "p"}
    model = tape.finetune(frame, target=list(COLUMNS), model="onehot", **options)
    found = model.predict(list(frame.sequence))
    assert list(found.columns) == ["id", "length", "prediction_Tm", "prediction_kcat"]
    assert found.prediction_Tm.between(45, 75).all()
    assert found.prediction_kcat.between(-0.02, 0.02).all()
    again = tape.load(model.directory).predict(list(frame.sequence))
    assert (again.prediction_Tm == found.prediction_Tm).all()
    with pytest.raises(ConfigError, match="target names a column, or several"):
        tape.finetune(frame, target=[], model="onehot", **options)


def test_metrics_chosen_by_name_are_those_of_every_target(table: Path) -> None:
    run = train(table)
    words = ["onehot", str(run), "--log_level", "40", "--bootstrap", "20", "--metrics"]
    assert set(run_eval([*words, "mae"])) == {"mae_Tm", "mae_kcat"}
    assert set(run_eval([*words, "spearmanr"])) == {"spearmanr", "spearmanr_Tm", "spearmanr_kcat"}


def test_the_report_has_each_target(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(table)
    report([str(run), "--out", str(tmp_path / "report")])
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "report").rglob("*") if path.is_file()]
    assert any("mean over targets" in text and "MAE of kcat" in text for text in texts)
    assert any("true values of Tm" in text and "true values of kcat" in text for text in texts)
    compare([str(run), str(run), "--bootstrap", "20"])
    assert "MAE of kcat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("targets", "options", "error", "message"),
    [
        (["Tm", "place"], [], ConfigError, "place is classification.*Train a model for each --target"),
        (["Tm", "Tm"], [], ConfigError, "'Tm' is given twice"),
        (["Tm", "nope"], [], DataError, "no column 'nope'"),
        (["Tm", "kcat"], ["--task-type", "multilabel"], ConfigError, "Tm is multilabel"),
        (["Tm", "k\ncat"], [], ConfigError, r"'k\\ncat' has control characters"),
    ],
)
def test_targets_that_one_model_cannot_learn_are_refused(
    table: Path, targets: list[str], options: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_train(["onehot", "--data", str(table), "--target", *targets, *options, *WORDS])


def test_a_target_that_training_cannot_learn_is_refused(tmp_path: Path, table: Path) -> None:
    few = write_table(tmp_path / "few.csv", {(number, "Tm"): "" for number in range(30)})
    with pytest.raises(DataError, match=r"few.csv: \d proteins with Tm; at least 10 are needed"):
        train(few)
    same = write_table(tmp_path / "same.csv", {(number, "Tm"): "50.0" for number in range(40)})
    with pytest.raises(DataError, match="column 'Tm' is 50 for all training proteins"):
        train(same)
