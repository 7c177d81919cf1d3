"""Runs that are resumed on other data (``--allow_other_samples``) keep what their weights have been trained with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from tape.errors import CheckpointError, DataError
from tape.io.lmdb_store import write_lmdb
from tape.main import run_eval, run_train
from tests.tape.conftest import make_record

WORDS = ["--time_or_name", "t", "--learning_rate", "1e-2", "--no_cuda"]


@pytest.fixture
def frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pandas.DataFrame:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("AAAGKLDE"), 16)) for _ in range(40)]
    return pandas.DataFrame(
        {
            "sequence": sequences,
            "Tm": [50 + sequence.count("A") + 0.25 for sequence in sequences],
            "kcat": [1e-3 * (2 + sequence.count("K")) for sequence in sequences],
            "place": [("in", "mid", "out")[min(2, sequence.count("L"))] for sequence in sequences],
            "split": [("train", "train", "train", "valid", "test")[number % 5] for number in range(40)],
        }
    )


def train(frame: pandas.DataFrame, *options: str) -> Path:
    frame.to_csv("my.csv", index=False)
    return run_train(["onehot", "--data", "my.csv", *options, "--num_train_epochs", "1", *WORDS])


def resume(run: Path, *options: str) -> None:
    words = ["onehot", "--from_pretrained", str(run), "--resume_from_checkpoint", "--num_train_epochs", "2"]
    run_train([*words, "--no_cuda", *options])


def config_in(run: Path, epoch: int) -> Any:
    return json.loads((run / str(epoch) / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("targets", [["Tm"], ["Tm", "kcat"]])
def test_the_scale_of_the_values_stays_and_that_of_the_data_is_in_the_log(
    frame: pandas.DataFrame, targets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(frame, "--target", *targets)
    frame[targets] = 10 * frame[targets] + 5
    frame.to_csv("my.csv", index=False)
    resume(run, "--allow_other_samples", "--save_freq", "1")
    assert config_in(run, 1)["target"] == config_in(run, 0)["target"]
    log = capsys.readouterr().err
    known = frame[frame.split == "train"]
    for column in targets:
        assert f"{column} is standardized by mean {(known[column].mean() - 5) / 10:.6g} and" in log
        assert f"now have mean {known[column].mean():.6g} and deviation {known[column].std(ddof=0):.6g}" in log
    run_eval(["onehot", str(run / "1"), "--predict", "my.csv", "--predict_out", "p.csv", "--no_cuda"])
    metrics = run_eval(["onehot", str(run / "1"), "--bootstrap", "0", "--no_cuda"])
    predicted = pandas.read_csv("p.csv")[frame.split == "test"]
    for column in targets:
        several = len(targets) > 1
        own = predicted[f"prediction_{column}" if several else "prediction"]
        error = (own - frame[column][frame.split == "test"]).abs().mean()
        assert metrics[f"mae_{column}" if several else "mae"] == pytest.approx(error, rel=1e-4)


def test_a_run_resumed_on_its_own_table_says_nothing_of_another_scale(
    frame: pandas.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(frame, "--target", "Tm", "kcat")
    resume(run)
    log = capsys.readouterr().err
    assert "Tm is standardized by its mean" in log
    assert "training values now have" not in log


def test_classes_keep_their_numbers_and_weights_when_one_is_gone(
    frame: pandas.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(frame, "--target", "place", "--class_weights", "balanced")
    frame[frame.place != "in"].to_csv("my.csv", index=False)  # the first class; without it, the others move up
    resume(run, "--allow_other_samples", "--save_freq", "1")
    before, after = (config_in(run, epoch) for epoch in (0, 1))
    assert before["target"]["classes"] == ["in", "mid", "out"]
    assert (after["target"], after["class_weights"]) == (before["target"], before["class_weights"])
    log = capsys.readouterr().err
    assert "classes without a training protein, which can't be learned: 'in'" in log or "learned: in" in log
    assert "these are the weights of the interrupted run; of the labels now, they would be class weights: in 1," in log


def test_a_new_class_is_refused_even_if_their_number_stays(frame: pandas.DataFrame) -> None:
    run = train(frame, "--target", "place")
    frame.place = frame.place.replace("in", "zone")
    frame.to_csv("my.csv", index=False)
    with pytest.raises(DataError, match="has 'zone', which is none of the model's classes: .*train a new model"):
        resume(run, "--allow_other_samples")


def test_integers_that_become_decimals_stay_classes(frame: pandas.DataFrame) -> None:
    frame["level"] = [number % 3 for number in range(40)]
    run = train(frame, "--target", "level")
    frame.level = frame.level.astype(float) + 0.5
    frame.to_csv("my.csv", index=False)
    with pytest.raises(DataError, match=r"has '\d\.5', which is none of the model's classes: 0, 1, 2"):
        resume(run, "--allow_other_samples")


def test_an_epoch_without_the_target_of_its_run_is_named(frame: pandas.DataFrame) -> None:
    run = train(frame, "--target", "Tm")
    file = run / "0" / "config.json"
    file.write_text(json.dumps({**config_in(run, 0), "target": None}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"0/config\.json: no target"):
        resume(run)


def test_the_scale_of_a_built_in_task_stays_and_that_of_the_data_is_in_the_log(
    train: Callable[..., Path], small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(small_data, tmp_path / "data"))
    run = train("onehot", "stability", "--standardize", "--num_train_epochs", 1, data=data)
    rng = np.random.default_rng(2)
    records = [make_record("stability", number, rng) for number in range(10)]
    for record in records:
        record["stability_score"] = [100 + record["stability_score"][0]]
    shutil.rmtree(data / "stability" / "stability_train.lmdb")
    write_lmdb(data / "stability" / "stability_train.lmdb", records)
    words = ["onehot", "stability", "--from_pretrained", str(run), "--resume_from_checkpoint", "--no_cuda"]
    run_train([*words, "--num_train_epochs", "2", "--allow_other_samples", "--save_freq", "1"])
    assert config_in(run, 1)["value_scale"] == config_in(run, 0)["value_scale"]
    mean = np.mean([record["stability_score"][0] for record in records])
    assert f"training values now have mean {mean:.6g}" in capsys.readouterr().err
