"""``tape.finetune``: the run is that of ``tape-train --data``."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import tape
from tape import LoadedModel
from tape.errors import CheckpointError, ConfigError, DataError
from tape.main import run_eval, run_train

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
OPTIONS: dict[str, Any] = {"num_train_epochs": 2, "learning_rate": 1e-2, "no_cuda": True, "log_level": "ERROR"}
WORDS = ["--num_train_epochs", "2", "--learning_rate", "1e-2", "--no_cuda", "--log_level", "ERROR"]


@pytest.fixture
def frame() -> pandas.DataFrame:
    """40 proteins whose values, classes and residue labels follow from their alanines."""
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list(RESIDUES if number % 2 else "AAAG"), 12)) for number in range(40)]
    shares = [sequence.count("A") / 12 for sequence in sequences]
    return pandas.DataFrame(
        {
            "id": [f"p{number}" for number in range(40)],
            "sequence": sequences,
            "Tm": [round(57 + 6 * share, 3) for share in shares],
            "place": ["rich" if share > 0.3 else "poor" for share in shares],
            "sites": ["".join("*" if letter == "A" else "o" for letter in sequence) for sequence in sequences],
        }
    )


@pytest.fixture
def table(frame: pandas.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    frame.to_csv("my.csv", index=False)
    return Path("my.csv")


@pytest.fixture
def finetune(table: Path) -> Callable[..., LoadedModel]:
    def run(data: Any, target: str = "Tm", **options: Any) -> LoadedModel:
        return tape.finetune(data, **{"target": target, "model": "onehot", **OPTIONS, **options})

    return run


Finetune = Callable[..., LoadedModel]


def history(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def arguments(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "args.json").read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("target", ["Tm", "place", "sites"])
def test_a_run_is_that_of_the_command(finetune: Finetune, frame: pandas.DataFrame, target: str) -> None:
    command = run_train(["onehot", "--data", "my.csv", "--target", target, "--time_or_name", "command", *WORDS])
    finetune("my.csv", target, time_or_name="file")
    finetune(frame, target, time_or_name="frame")
    runs = Path(f"results/my_{target}_onehot_file"), Path(f"results/table_{target}_onehot_frame")
    for run in runs:
        assert history(run) == history(command)
        assert (run / "splits.tsv").read_bytes() == (command / "splits.tsv").read_bytes()
    named = {"time_or_name"}
    differing = {name for name, value in arguments(runs[0]).items() if value != arguments(command)[name]}
    assert differing == named


@pytest.mark.parametrize("target", ["Tm", "place", "sites"])
def test_predictions_are_those_of_the_command(finetune: Finetune, table: Path, target: str) -> None:
    model = finetune("my.csv", target, time_or_name="t")
    predicted = model.predict("my.csv")
    words = [f"results/my_{target}_onehot_t", "--predict", "my.csv", "--predict_out", "p.csv", "--log_level", "ERROR"]
    run_eval(["onehot", *words, "--no_cuda"])
    with Path("p.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert predicted["id"].tolist() == [row["id"] for row in rows]
    if target == "Tm":
        np.testing.assert_allclose(predicted["prediction"], [float(row["prediction"]) for row in rows], rtol=1e-5)
    else:
        assert predicted["prediction"].tolist() == [row["prediction"] for row in rows]


def test_a_model_has_the_names_of_classes_and_all_probabilities(finetune: Finetune, frame: pandas.DataFrame) -> None:
    predicted = finetune(frame, "place").predict(frame)
    assert set(predicted["prediction"]) <= {"poor", "rich"}
    assert predicted["classes"].tolist() == [["poor", "rich"]] * 40
    probabilities = np.stack(predicted["probabilities"].tolist())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-3)


def test_values_are_predicted_in_the_unit_of_the_column(finetune: Finetune, frame: pandas.DataFrame) -> None:
    predicted = finetune(frame, num_train_epochs=40).predict(frame)
    assert np.abs(predicted["prediction"] - frame["Tm"]).mean() < 1


def test_a_frame_is_kept_in_the_run_directory(finetune: Finetune, frame: pandas.DataFrame) -> None:
    finetune(frame, time_or_name="t")
    run = Path("results/table_Tm_onehot_t")
    assert arguments(run)["data"] == str(run.resolve() / "table.jsonl")
    words = ["--split", "test", "--log_level", "ERROR", "--no_cuda"]
    metrics = run_eval(["onehot", str(run), *words])
    assert metrics["mae"] > 0
    shutil.move(run, "moved")
    assert run_eval(["onehot", "moved", *words]) == metrics


def test_a_frame_may_have_missing_labels_dates_and_an_index_of_ids(finetune: Finetune, frame: pandas.DataFrame) -> None:
    given = frame.drop(columns="id").set_index(pandas.Index([f"x{number}" for number in range(40)]))
    given["measured"] = pandas.Timestamp("2020-01-02")
    given.loc["x3", "Tm"] = np.nan
    finetune(given, time_or_name="t")
    rows = (Path("results/table_Tm_onehot_t") / "table.jsonl").read_text(encoding="utf-8").splitlines()
    third = json.loads(rows[3])
    assert (third["id"], third["Tm"], third["measured"]) == ("x3", None, "2020-01-02 00:00:00")


def test_a_finetuned_model_is_started_from(finetune: Finetune, frame: pandas.DataFrame) -> None:
    first = finetune(frame, time_or_name="first")
    second = finetune(frame, time_or_name="second", from_pretrained=first.directory)
    provenance = json.loads((second.directory / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["initialised_from"] == str(first.directory)


def scale_of(run: Path, epoch: int = 0) -> list[float]:
    config = json.loads((run / str(epoch) / "config.json").read_text(encoding="utf-8"))
    return [config["target"]["mean"], config["target"]["std"]]


def values_of(frame: pandas.DataFrame, run: Path, number: int, seed: int) -> pandas.Series[float]:
    """The values of the training proteins that a run draws, by the definition of --max_train_samples."""
    splits = pandas.read_csv(run / "splits.tsv", sep="\t", comment="#").set_index("id")["split"]
    values = frame["Tm"][frame["id"].map(splits) == "train"].reset_index(drop=True)
    return values[np.random.default_rng(seed).permutation(len(values))[:number]]


def test_values_are_standardized_by_the_proteins_that_are_drawn(
    finetune: Finetune, frame: pandas.DataFrame, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["onehot", "--data", str(table), "--target", "Tm", *WORDS[:-1], "INFO", "--seeds", "2", "--seed", "5"]
    run = run_train([*words, "--max_train_samples", "8", "--exp_name", "drawn"])
    log = capsys.readouterr().err
    for seed in (5, 6):
        values = values_of(frame, run / f"seed_{seed}", 8, seed)
        assert scale_of(run / f"seed_{seed}") == pytest.approx([values.mean(), values.std(ddof=0)])
        assert f"Tm is standardized by its mean {values.mean():.6g}" in log
    assert log.count("Tm is standardized by") == 2
    metrics = run_eval(["onehot", str(run / "seed_6"), "--split", "test", "--no_cuda", "--log_level", "ERROR"])
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"][1]["metrics"]["test"]["mae"] == pytest.approx(metrics["mae"])
    with pytest.raises(DataError, match="column 'Tm' is .* for all training proteins: nothing to learn"):
        finetune("my.csv", max_train_samples=1)
    with pytest.raises(DataError, match="for all training proteins: nothing to learn"):
        finetune("my.csv", max_train_samples=1, standardize=False)


def test_a_loss_in_units_of_each_draw_has_no_mean(table: Path, frame: pandas.DataFrame) -> None:
    words = ["onehot", "--data", str(table), "--target", "Tm", *WORDS, "--seeds", "2", "--max_train_samples", "8"]
    run = run_train([*words, "--exp_name", "own_units"])
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert "loss" in summary["runs"][0]["metrics"]["valid"]
    assert "loss" not in summary["summary"]["valid"]
    assert "mae" in summary["summary"]["valid"] or "spearmanr" in summary["summary"]["valid"]
    run = run_train([*words, "--no-standardize", "--exp_name", "same_units"])
    assert "loss" in json.loads((run / "summary.json").read_text(encoding="utf-8"))["summary"]["valid"]


def test_classes_that_no_drawn_protein_has_are_named(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["onehot", "--data", str(table), "--target", "place", *WORDS[:-1], "INFO"]
    run_train([*words, "--exp_name", "every"])
    assert "classes without a training protein" not in capsys.readouterr().err
    run_train([*words, "--exp_name", "one", "--max_train_samples", "1"])
    assert "classes without a training protein, which can't be learned: " in capsys.readouterr().err


def test_a_resumed_run_keeps_the_scale_of_its_proteins(
    finetune: Finetune, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finetune("my.csv", max_train_samples=8, time_or_name="t").directory.parent
    before = scale_of(run, 1)
    words = ["onehot", "--from_pretrained", str(run), "--resume_from_checkpoint", "--num_train_epochs", "4"]
    run_train([*words, "--no_cuda", "--save_freq", "1", "--log_level", "INFO"])
    assert scale_of(run, 3) == before
    assert "as before the resume" not in capsys.readouterr().err


def test_seeds_have_the_splits_of_the_first_one(finetune: Finetune, table: Path) -> None:
    words = ["onehot", "--data", str(table), "--target", "place", *WORDS, "--seeds", "2", "--split", "0.6,0.2,0.2"]
    run = run_train([*words, "--eval_splits", "valid", "test", "--exp_name", "seeds"])
    assert (run / "seed_42" / "splits.tsv").read_bytes() == (run / "seed_43" / "splits.tsv").read_bytes()
    assert (run / "summary.json").is_file()


def test_a_run_of_the_same_name_is_not_replaced(finetune: Finetune, frame: pandas.DataFrame) -> None:
    finetune(frame, time_or_name="t")
    run = Path("results/table_Tm_onehot_t")
    before = (run / "table.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="results/table_Tm_onehot_t exists; choose another time_or_name"):
        finetune(frame.head(20), time_or_name="t")
    assert (run / "table.jsonl").read_bytes() == before
    finetune(frame.head(20), time_or_name="t", overwrite=True)
    assert len((run / "table.jsonl").read_text(encoding="utf-8").splitlines()) == 20


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "Tn"}, DataError, "^the DataFrame, record 1 .*: no column 'Tn'"),
        ({"target": 3}, ConfigError, "target names a column, or several, not 3"),
        ({"sequence_column": "place"}, DataError, "^the DataFrame: 3 splits .* 2 different sequences"),
        ({"learning_rat": 1e-3}, ConfigError, "did you mean learning_rate?"),
        ({"batch_size": "many"}, ConfigError, "^argument batch_size: invalid int value: 'many'"),
        ({"split": (80, 10)}, ConfigError, "argument split: must be TRAIN,VALID,TEST"),
        ({"freeze": True, "lora": 2}, ConfigError, "not allowed with argument"),
        ({"seeds": 2}, ConfigError, "there is no option 'seeds'"),
        ({"from_pretrained": "nowhere/model"}, CheckpointError, "nowhere/model"),
        ({"model": "onehott"}, ConfigError, "onehott can't be trained on a table"),
    ],
)
def test_a_call_that_fails_leaves_no_directory(
    finetune: Finetune, frame: pandas.DataFrame, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        finetune(frame, **options)
    assert not list(Path("results").glob("*"))


def test_labels_may_be_in_a_table_beside_the_sequences(finetune: Finetune, frame: pandas.DataFrame) -> None:
    rows = zip(frame["id"], frame["sequence"], strict=True)
    Path("proteins.fasta").write_text("".join(f">{name} x\n{sequence}\n" for name, sequence in rows), encoding="utf-8")
    frame.drop(columns="sequence")[::-1].to_csv("labels.csv", index=False)
    beside = finetune("proteins.fasta", labels=Path("labels.csv"), time_or_name="t").predict("proteins.fasta")
    whole = finetune("my.csv", time_or_name="t").predict("my.csv")
    pandas.testing.assert_frame_equal(beside, whole)
    with pytest.raises(ConfigError, match="labels is the path of a table, not DataFrame"):
        finetune("proteins.fasta", labels=frame)


def test_other_data_are_refused(finetune: Finetune) -> None:
    with pytest.raises(ConfigError, match="data is the path of a table or a pandas DataFrame, not list"):
        finetune([1, 2])


def test_columns_of_the_same_name_are_refused(finetune: Finetune, frame: pandas.DataFrame) -> None:
    with pytest.raises(ConfigError, match="two columns of the table have the same name"):
        finetune(pandas.concat([frame, frame["Tm"]], axis=1))


def test_a_run_of_a_frame_is_resumed_by_the_command(finetune: Finetune, frame: pandas.DataFrame) -> None:
    finetune(frame, time_or_name="t", save_freq=1)
    run = Path("results/table_Tm_onehot_t")
    words = ["--resume_from_checkpoint", "--num_train_epochs", "3", "--no_cuda", "--log_level", "ERROR"]
    run_train(["onehot", "--from_pretrained", str(run), *words])
    assert [record["epoch"] for record in history(run)] == [0, 1, 2]


def test_a_list_of_classes_per_residue_is_a_label(finetune: Finetune, frame: pandas.DataFrame) -> None:
    frame["sites"] = [[f"class {letter}" for letter in sites] for sites in frame["sites"]]
    prediction = finetune(frame, "sites", task_type="residue").predict(frame)["prediction"][0]
    assert set(prediction.replace("class ", "").split()) <= {"*", "o"}
