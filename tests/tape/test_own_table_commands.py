"""A user's own table from training to evaluation and prediction, by the commands."""

from __future__ import annotations

import csv
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tape.cli.evaluate import eval_config
from tape.cli.train import finetune_config
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.hub.bundled import DEFAULT_MODEL
from tape.main import run_eval, run_train
from tape.models.modeling_onehot import ProteinOneHotForValuePrediction
from tests.support.bundled_models import install_model

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 proteins whose values, classes and residue labels follow from their alanines."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = ["id,sequence,Tm,place,sites,terms"]
    for number in range(40):
        sequence = "".join(rng.choice(list(RESIDUES if number % 2 else "AAAG"), 12))
        share = sequence.count("A") / 12
        sites = sequence.replace("A", "*")
        sites = "".join(letter if letter == "*" else "o" for letter in sites)
        terms = "all;rich" if share > 0.3 else "all"
        lines.append(f"p{number},{sequence},{57 + 6 * share:.3f},{'rich' if share > 0.3 else 'poor'},{sites},{terms}")
    path = tmp_path / "my.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


Train = Callable[..., Path]


@pytest.fixture
def train_table(table: Path) -> Train:
    def run(target: str, *options: object) -> Path:
        words = ["onehot", "--data", str(table), "--target", target, "--time_or_name", "t", "--log_level", "40"]
        return run_train([*words, *map(str, options)])

    return run


def evaluate(run: Path, *options: object) -> dict[str, float]:
    return run_eval(["onehot", str(run), "--log_level", "40", "--bootstrap", "20", *map(str, options)])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_values_are_learned_and_reported_in_their_unit(train_table: Train, table: Path, tmp_path: Path) -> None:
    run = train_table("Tm", "--learning_rate", "1e-2", "--num_train_epochs", 40)
    assert run.name == "my_Tm_onehot_t"
    metrics, results = pickle.loads((run / "results.pkl").read_bytes())  # --eval_splits test by default
    assert metrics["mae"] < 1.0
    assert all(55 < result["prediction"].item() < 65 for result in results)
    run_eval(["onehot", str(run), "--predict", str(table), "--predict_out", "p.csv", "--log_level", "40"])
    predicted = {row["id"]: float(row["prediction"]) for row in rows_of(tmp_path / "p.csv")}
    assert len(predicted) == 40
    assert predicted[results[0]["id"]] == pytest.approx(results[0]["prediction"].item(), rel=1e-5)


def test_the_log_has_intervals_and_the_column_of_predictions(
    train_table: Train, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_table("Tm", "--num_train_epochs", 1)
    evaluate(run, "--log_level", 20)
    shown = capsys.readouterr().err
    assert "metrics with 95 % intervals over the proteins:" in shown
    metrics = json.loads((run / "0" / "eval_test.json").read_text(encoding="utf-8"))["metrics"]
    (mae,) = [metric for metric in metrics if metric["name"] == "mae"]
    low, high = mae["interval"]
    assert low < mae["value"] < high
    assert f"mae: {mae['value']:.4g} [{low:.4g}, {high:.4g}]\n" in shown
    assert re.search(r"loss: [\d.e-]+\n", shown)  # which has none
    evaluate(run, "--predict", table, "--predict_out", "p.csv", "--log_level", 20)
    assert "wrote 40 predictions of Tm to p.csv" in capsys.readouterr().err


def test_residues_that_training_has_not_seen_do_not_explode(train_table: Train, table: Path, tmp_path: Path) -> None:
    lines = table.read_text(encoding="utf-8").splitlines()
    unseen = [line.replace("W", "A") for line in lines]
    table.write_text("\n".join(unseen) + "\n", encoding="utf-8")
    run = train_table("Tm")
    (tmp_path / "new.fasta").write_text(">seen\nAAAGAAAGAAAG\n>unseen\nAAAGAWAGAAAG\n", encoding="utf-8")
    evaluate(run, "--predict", "new.fasta", "--predict_out", "new.csv")
    values = [float(row["prediction"]) for row in rows_of(tmp_path / "new.csv")]
    assert all(50 < value < 70 for value in values), values


def test_an_evaluation_uses_the_splits_of_the_run(train_table: Train, table: Path) -> None:
    run = train_table("Tm", "--num_train_epochs", 1, "--split", "60,20,20")
    with (run / "splits.tsv").open(encoding="utf-8") as stream:
        test = {row["id"] for row in csv.DictReader(stream, delimiter="\t") if row["split"] == "test"}
    assert len(test) == 8
    for options in ((), ("--data", table)):
        evaluate(run, *options)
        assert {result["id"] for result in pickle.loads((run / "results.pkl").read_bytes())[1]} == test
    record = json.loads((run / "0" / "eval_test.json").read_text(encoding="utf-8"))
    assert (record["task"], record["data"]["name"], record["proteins"]) == ("my_Tm", "my.csv", 8)


def test_a_run_finds_its_table_from_another_directory(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_train(["onehot", "--data", "my.csv", "--target", "Tm", "--num_train_epochs", "2", "--log_level", "40"])
    here = evaluate(run.resolve(), "--split", "valid")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate(tmp_path / run, "--split", "valid") == here


def test_an_evaluation_may_name_the_columns(train_table: Train, table: Path) -> None:
    run = train_table("Tm", "--num_train_epochs", 1)
    renamed = table.with_name("renamed.csv")
    renamed.write_text(table.read_text(encoding="utf-8").replace("id,sequence,", "protein,chain,"), encoding="utf-8")
    options = ("--data", renamed, "--sequence_column", "chain", "--id_column", "protein")
    assert evaluate(run, *options) == evaluate(run)


def test_classes_have_names_in_predictions(train_table: Train, table: Path, tmp_path: Path) -> None:
    run = train_table("place", "--num_train_epochs", 1)
    evaluate(run, "--predict", table, "--predict_out", "p.csv")
    row = rows_of(tmp_path / "p.csv")[0]
    assert row["prediction"] in {"poor", "rich"}
    assert float(row["probability_poor"]) + float(row["probability_rich"]) == pytest.approx(1, abs=2e-4)
    evaluate(run, "--predict", table, "--predict_out", "p.json")
    predictions = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))["predictions"]
    assert predictions[0]["classes"] == ["poor", "rich"]


def test_several_labels_per_protein(train_table: Train, table: Path, tmp_path: Path) -> None:
    options = ("--task-type", "multilabel", "--num_train_epochs", 30, "--learning_rate", "1e-2")
    run = train_table("terms", *options)
    found = evaluate(run)
    assert found["micro_f1"] == found["auroc"] == 1
    assert "accuracy" not in found
    evaluate(run, "--predict", table, "--predict_out", "p.csv")
    rows = rows_of(tmp_path / "p.csv")
    assert {row["prediction"] for row in rows} == {"all", "all;rich"}
    assert all((float(row["probability_rich"]) > 0.5) == ("rich" in row["prediction"]) for row in rows)


def test_residue_labels_keep_their_letters(train_table: Train, table: Path, tmp_path: Path) -> None:
    run = train_table("sites", "--num_train_epochs", 1)
    evaluate(run, "--predict", table, "--predict_out", "p.csv")
    row = rows_of(tmp_path / "p.csv")[0]
    assert len(row["prediction"]) == 12
    assert set(row["prediction"]) <= {"*", "o"}


def test_a_saved_model_is_loaded_by_from_pretrained_alone(train_table: Train) -> None:
    run = train_table("Tm", "--num_train_epochs", 1)
    model = ProteinOneHotForValuePrediction.from_pretrained(run)
    assert 50 < model(torch.tensor([[2, 5, 6, 3]]))[0].item() < 70


def test_a_run_on_another_task_does_not_keep_the_target(train_table: Train, train: Train) -> None:
    run = train_table("Tm", "--num_train_epochs", 1)
    other = train("onehot", "stability", "--from_pretrained", run, "--num_train_epochs", 1)
    assert "target" not in json.loads((other / "0" / "config.json").read_text(encoding="utf-8"))


def test_a_run_is_resumed_with_its_table_and_splits(train_table: Train) -> None:
    run = train_table("Tm", "--num_train_epochs", 1, "--split", "60,20,20", "--save_freq", 1)
    splits = (run / "splits.tsv").read_bytes()
    words = ["onehot", "--from_pretrained", str(run), "--resume_from_checkpoint", "--log_level", "40"]
    assert run_train([*words, "--num_train_epochs", "2"]) == run.resolve()
    assert (run / "1").is_dir()
    assert (run / "splits.tsv").read_bytes() == splits
    with pytest.raises(ConfigError, match="started with --target Tm, which can't be changed"):
        run_train([*words, "--target", "place"])


def test_clusters_stay_together_and_a_resumed_run_keeps_them(
    train_table: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # without MMseqs2
    run = train_table("Tm", "--num_train_epochs", 1, "--split-by", "identity", "--save_freq", 1)
    arguments = json.loads((run / "args.json").read_text(encoding="utf-8"))
    assert (arguments["split_by"], arguments["split_identity"]) == ("identity", 0.5)
    files = [run / "splits.tsv", run / "splits.json"]
    before = [file.read_bytes() for file in files]
    assert before[0].startswith(b"id\tsplit\tsha256\tcluster\n")
    words = ["onehot", "--from_pretrained", str(run), "--resume_from_checkpoint", "--log_level", "40"]
    run_train([*words, "--num_train_epochs", "2"])
    assert [file.read_bytes() for file in files] == before
    with pytest.raises(ConfigError, match="started with --split_identity 0.5, which can't be changed"):
        run_train([*words, "--split-identity", "0.6"])


def test_options_of_the_user_win_over_defaults(table: Path) -> None:
    words = ["lstm", "--data", str(table), "--target", "Tm"]
    config = finetune_config([*words, "--batch_size", "4", "--pooling", "cls", "--num_train_epochs", "3"])
    assert (config.loop.batch_size, config.loop.num_train_epochs) == (4, 3)
    assert config.model.overrides == {"pooling": "cls", "pooled_norm": "batch"}
    assert config.loop.optimizer.head_learning_rate == pytest.approx(1e-3)
    assert (config.loop.save_freq, config.eval_splits) == ("improvement", ("test",))
    assert finetune_config([*words, "--eval_freq", "0"]).loop.patience == -1


def test_the_default_learning_rate_follows_from_the_hidden_size(table: Path) -> None:
    rates = {}
    for hidden_size in (64, 128, 1024):
        ProteinBertConfig(hidden_size=hidden_size, num_attention_heads=4).save_pretrained(table.parent)
        words = ["transformer", "--data", str(table), "--target", "Tm", "--model_config_file", "config.json"]
        optimizer = finetune_config(words).loop.optimizer
        rates[hidden_size] = optimizer.learning_rate, optimizer.head_learning_rate
    assert rates == {64: (1e-3, 1e-3), 128: (1e-3, 1e-3), 1024: (1.25e-4, 1e-3)}
    optimizer = finetune_config([*words, "--learning_rate", "2e-5"]).loop.optimizer
    assert (optimizer.learning_rate, optimizer.head_learning_rate) == (2e-5, pytest.approx(2e-4))


def test_the_default_model_of_a_table_is_the_bundled_one(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(table.parent / "models", monkeypatch)
    words = ["transformer", "--data", str(table), "--target"]
    values, classes = (finetune_config([*words, target]) for target in ("Tm", "place"))
    assert values.model.from_pretrained == classes.model.from_pretrained == DEFAULT_MODEL
    assert "hidden_dropout_prob" not in values.model.overrides
    assert classes.model.overrides["hidden_dropout_prob"] == 0.1
    assert all(f"--from_pretrained {DEFAULT_MODEL}" in config.notices[0] for config in (values, classes))
    for own in (["--config", "hidden_size=32"], ["--from_pretrained", "models/a"]):
        assert finetune_config([*words, "Tm", *own]).model.from_pretrained != DEFAULT_MODEL
    assert finetune_config(["onehot", *words[1:], "Tm"]).model.from_pretrained is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["onehot"], "give a task, or your own table"),
        (["onehot", "--data", "my.csv"], "give the column to predict, --target NAME"),
        (["onehot", "stability", "--target", "Tm"], "--target is for your own table"),
        (["onehot", "stability", "--labels", "labels.csv"], "--labels is for your own table"),
        (["onehot", "stability", "--split-by", "identity"], "--split-by is for your own table"),
        (["onehot", "stability", "--data", "my.csv"], "a task of its own; leave out stability"),
        (["trrosetta", "--data", "my.csv", "--target", "Tm"], "trrosetta can't be trained on a table"),
        (["onehot", "--data", "my.csv", "--target", "sites", "--pooling", "mean"], "--pooling is for tasks with one"),
    ],
)
def test_options_that_contradict_each_other_are_refused(words: list[str], message: str, table: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        finetune_config(words)


@pytest.fixture
def fasta(table: Path) -> tuple[Path, Path]:
    """The sequences of the table as FASTA, and its labels in another order."""
    rows = rows_of(table)
    proteins, labels = table.with_name("proteins.fasta"), table.with_name("labels.tsv")
    proteins.write_text("".join(f">{row['id']} from a gel\n{row['sequence']}\n" for row in rows), encoding="utf-8")
    lines = ["Tm\tprotein", *(f"{row['Tm']}\t{row['id']}" for row in reversed(rows))]
    labels.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return proteins, labels


def test_a_label_table_beside_a_fasta_file(train_table: Train, fasta: tuple[Path, Path], table: Path) -> None:
    """The numbers are those of one table, in training, evaluation, a resumed run, and a prediction of the file."""
    proteins, labels = fasta
    same = ("--num_train_epochs", 1, "--save_freq", 1)
    words = ("--data", proteins.name, "--labels", labels.name, "--id_column", "protein", *same)
    run, whole = train_table("Tm", *words), train_table("Tm", *same)
    assert run.name == "proteins_Tm_onehot_t"
    assert (run / "splits.tsv").read_bytes() == (whole / "splits.tsv").read_bytes()
    arguments = json.loads((run / "args.json").read_text(encoding="utf-8"))
    assert (arguments["data"], arguments["labels"]) == (str(proteins.resolve()), str(labels.resolve()))
    assert evaluate(run) == evaluate(whole)
    again = evaluate(run, "--data", proteins, "--labels", labels, "--id_column", "protein", "--split", "all")
    assert again == evaluate(whole, "--data", table, "--split", "all")
    record = json.loads((run / "0" / "eval_all.json").read_text(encoding="utf-8"))
    assert (record["data"]["name"], record["proteins"]) == ("proteins.fasta with labels.tsv", 40)
    resume = ["onehot", "--from_pretrained", str(run), "--resume_from_checkpoint", "--log_level", "40"]
    run_train([*resume, "--num_train_epochs", "2"])
    labels.write_text(labels.read_text(encoding="utf-8").replace("57.", "58."), encoding="utf-8")
    with pytest.raises(ConfigError, match="the run was trained with other data"):
        run_train([*resume, "--num_train_epochs", "3"])
    labels.unlink()
    with pytest.raises(ConfigError, match=r"not here \(.*labels\.tsv\); give --data FILE and --labels FILE"):
        evaluate(run)
    evaluate(run, "--predict", proteins, "--predict_out", "p.csv")
    assert len(rows_of(table.with_name("p.csv"))) == 40


def test_labels_belong_to_data_and_not_to_predictions(train_table: Train, fasta: tuple[Path, Path]) -> None:
    run, (proteins, labels) = train_table("Tm", "--num_train_epochs", 1), fasta
    with pytest.raises(ConfigError, match="--labels .* give --data FILE with it"):
        evaluate(run, "--labels", labels)
    for option in ("--data", "--labels"):
        with pytest.raises(ConfigError, match=f"{option}: predictions need no labels"):
            evaluate(run, "--predict", proteins, option, labels)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stability"], "the following arguments are required: from_pretrained"),
        (["stabilit", "somewhere"], "invalid choice: 'stabilit' .*; did you mean stability?"),
        (["somewhere"], "'somewhere' is no model of your own table; give a task"),
    ],
)
def test_the_task_of_an_evaluation_is_checked(
    words: list[str], message: str, capsys: pytest.CaptureFixture[Any]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        eval_config(["onehot", *words])
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_table_of_a_moved_run_has_to_be_named(train_table: Train, table: Path) -> None:
    run = train_table("Tm", "--num_train_epochs", 1)
    table.rename(table.with_name("moved.csv"))
    with pytest.raises(ConfigError, match="the table of its run is not here .*; give --data FILE"):
        evaluate(run)
    assert evaluate(run, "--data", table.with_name("moved.csv"))["mae"] > 0
