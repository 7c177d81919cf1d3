"""``--standardize`` of a built-in task: the scale, what a run stores, and its effect on predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape import load
from tape.cli.train import finetune_config
from tape.configs import ProteinBertConfig
from tape.datasets.whole_protein import StabilityDataset
from tape.errors import CheckpointError, ConfigError, DataError
from tape.finetuning.value_scale import training_scale
from tape.loaded_model import LoadedModel
from tape.main import run_eval, run_train
from tape.targets import value_scales
from tests.support.labels_alone import data_of

Train = Callable[..., Path]
ONE_EPOCH = ("--num_train_epochs", 1)


def test_the_scale_is_that_of_the_proteins_trained_on() -> None:
    assert training_scale(data_of([[1.0], [3.0], [100.0]], [0, 1]), "stability") == (2.0, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([2.0, 2.0], "stability is 2 for all training proteins"),
        ([2.0, float("nan")], "stability is nan for a training protein"),
    ],
)
def test_values_without_a_scale_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        training_scale(data_of([[value] for value in values], [0, 1]), "stability")


def config_of(run: Path, epoch: int = 0) -> Any:
    return json.loads((run / str(epoch) / "config.json").read_text(encoding="utf-8"))


def training_values(data: Path) -> list[float]:
    with_labels = StabilityDataset(data, "train")
    return [with_labels[index][2] for index in range(len(with_labels))]


def predicted(model: LoadedModel) -> float:
    return float(model.predict("MKVLAAGIT")["prediction"].iloc[0])


def test_predictions_and_metrics_of_a_standardized_run_keep_their_unit(train: Train, small_data: Path) -> None:
    run = train("onehot", "stability", "--standardize", *ONE_EPOCH)
    scale, values = config_of(run)["value_scale"], training_values(small_data)
    assert (scale["mean"], scale["std"]) == pytest.approx((np.mean(values), np.std(values)), rel=1e-6)
    words = ["onehot", "stability", str(run / "0"), "--data_dir", str(small_data), "--split", "valid"]
    standardized = run_eval(words)
    prediction = predicted(load(run, device="cpu"))
    file = run / "0" / "config.json"
    file.write_text(json.dumps({**config_of(run), "value_scale": None}), encoding="utf-8")
    z_score = predicted(load(run, device="cpu", verify=False))
    assert prediction == pytest.approx(z_score * scale["std"] + scale["mean"], rel=1e-4, abs=1e-5)
    plain = run_eval([*words, "--no-verify"])
    assert standardized["spearmanr"] == pytest.approx(plain["spearmanr"])
    assert standardized["loss"] == pytest.approx(standardized["mse"] / scale["std"] ** 2, rel=1e-4)


def test_values_are_learned_as_published_by_default_and_a_later_run_has_no_scale_of_an_earlier_one(
    train: Train,
) -> None:
    run = train("onehot", "stability", "--standardize", *ONE_EPOCH)
    later = train("onehot", "stability", "--from_pretrained", run, *ONE_EPOCH, "--time_or_name", "later")
    assert "value_scale" not in config_of(later)


def test_a_resumed_run_keeps_the_scale_and_none_is_added(train: Train) -> None:
    run = train("onehot", "stability", "--standardize", *ONE_EPOCH)
    run_train([*resume(run), "--num_train_epochs", "2"])
    assert config_of(run, 1)["value_scale"] == config_of(run)["value_scale"]
    plain = train("onehot", "stability", *ONE_EPOCH, "--time_or_name", "plain")
    with pytest.raises(ConfigError, match="without --standardize, which can't be changed on resume"):
        run_train([*resume(plain), "--standardize"])


TARGET = {"task": "table", "type": "regression", "column": ["a", "b"], "mean": [0.0, 1.0], "std": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value_scale": None}, "must have value_scale"),
        ({"value_scale": [1, 2]}, "value_scale needs the numbers mean and std"),
        ({"value_scale": {"mean": 1.0, "std": 0}}, "std must be positive"),
        ({"target": TARGET}, "no target of a table"),
    ],
)
def test_a_resume_refuses_a_configuration_without_one_scale(fields: dict[str, Any], message: str, train: Train) -> None:
    run = train("onehot", "stability", "--standardize", *ONE_EPOCH)
    file = run / "0" / "config.json"
    file.write_text(json.dumps({**config_of(run), **fields}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"0/config\.json: .*{message}.*; restore the file"):
        run_train([*resume(run), "--num_train_epochs", "2"])
    assert not (run / "1").exists()


def resume(run: Path) -> list[str]:
    return ["onehot", "stability", "--from_pretrained", str(run), "--resume_from_checkpoint"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["onehot", "secondary_structure"], "--standardize is for tasks with a value per protein, not for sec"),
        (["onehot", "stability", "--force_save", "untrained"], "needs the training split, which --force_save"),
    ],
)
def test_a_run_that_has_no_values_to_standardize_is_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        finetune_config([*words, "--data_dir", str(tmp_path), "--standardize"])


@pytest.mark.parametrize(
    "scale",
    [
        [1, 2],
        {},
        {"mean": 1.0},
        {"mean": True, "std": 1.0},
        {"mean": 0.0, "std": float("inf")},
        {"mean": 10**400, "std": 1},
    ],
)
def test_a_damaged_scale_is_refused(scale: Any) -> None:
    with pytest.raises(ConfigError, match="value_scale needs the numbers mean and std"):
        value_scales(ProteinBertConfig(value_scale=scale))


def test_a_scale_without_a_deviation_is_refused() -> None:
    with pytest.raises(ConfigError, match="std must be positive, not 0"):
        value_scales(ProteinBertConfig(value_scale={"mean": 1.0, "std": 0.0}))
