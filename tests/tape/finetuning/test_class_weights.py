"""Weights of classes in the loss, and how a run stores them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tape.cli.train import finetune_config
from tape.errors import CheckpointError, ConfigError, quoted
from tape.finetuning.class_weights import balanced_class_weights, describe_weights
from tape.main import run_eval, run_train
from tests.support.labels_alone import data_of

Train = Callable[..., Path]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = [0, 0, 0, 0, 0, 2, 2, 1]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    assert balanced_class_weights(data_of(labels), 3) == pytest.approx(expected)


def test_residues_count_and_those_without_a_label_do_not() -> None:
    assert balanced_class_weights(data_of([[-1, 0, 0, -1], [-1, 0, 1, -1]]), 2) == pytest.approx((4 / 6, 2.0))


def test_only_the_proteins_trained_on_count_and_a_class_without_any_has_weight_one() -> None:
    assert balanced_class_weights(data_of([0, 0, 0, 1, 2], [0, 1, 2, 3]), 3) == pytest.approx((4 / 6, 2.0, 1.0))


def test_a_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="a label is 5, but the task has 3 classes"):
        balanced_class_weights(data_of([0, 5]), 3)


def test_weights_are_described_by_the_names_of_classes() -> None:
    assert describe_weights((0.5, 2.0), ("helix", "coil")) == "class weights: helix 0.5, coil 2"
    assert describe_weights((0.25, 1.0), ()) == "class weights: 0 0.25, 1 1"
    assert describe_weights([0.5] * 30 + [4.0], ()) == "class weights from 0.5 to 4"


def stored_weights(run: Path) -> Any:
    return json.loads((run / "0" / "config.json").read_text(encoding="utf-8")).get("class_weights")


def test_a_run_stores_its_weights_and_a_later_run_does_not_inherit_them(train: Train) -> None:
    run = train("onehot", "secondary_structure", "--class_weights", "balanced", "--num_train_epochs", 1)
    assert len(stored_weights(run)) == 3
    options = ["onehot", "secondary_structure", "--from_pretrained", str(run), "--num_train_epochs", 1]
    assert stored_weights(train(*options, "--time_or_name", "later")) is None


def test_weights_are_kept_on_resume(train: Train) -> None:
    run = train("onehot", "secondary_structure", "--class-weights", "balanced", "--num_train_epochs", 1)
    run_train([*resume(run), "--num_train_epochs", "2"])
    resumed = json.loads((run / "1" / "config.json").read_text(encoding="utf-8"))
    assert resumed["class_weights"] == stored_weights(run)
    plain = train("onehot", "secondary_structure", "--num_train_epochs", 1, "--time_or_name", "plain")
    with pytest.raises(ConfigError, match="without --class_weights, which can't be changed on resume"):
        run_train([*resume(plain), "--class_weights", "balanced"])


def resume(run: Path) -> list[str]:
    return ["onehot", "secondary_structure", "--from_pretrained", str(run), "--resume_from_checkpoint"]


@pytest.mark.parametrize("weights", [[0.5, 2.0], [1.0] * 4, None, 3, {"0": 1.0}, ["1", "1", "1"]])
def test_weights_that_are_not_one_for_each_class_are_refused_on_resume(weights: Any, train: Train) -> None:
    run = train("onehot", "secondary_structure", "--class_weights", "balanced", "--num_train_epochs", 1)
    file = run / "0" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "class_weights": weights}), encoding="utf-8")
    message = (
        rf"0/config\.json: class_weights must be a list of 3 numbers, .* not {re.escape(quoted(weights))}; restore"
    )
    with pytest.raises(CheckpointError, match=message):
        run_train([*resume(run), "--num_train_epochs", "2"])
    assert not (run / "1").exists()


def test_weights_change_the_loss_of_an_evaluation_and_not_its_metrics(train: Train, small_data: Path) -> None:
    run = train("onehot", "secondary_structure", "--class_weights", "balanced", "--num_train_epochs", 1)
    words = ["onehot", "secondary_structure", str(run / "0"), "--data_dir", str(small_data), "--split", "valid"]
    weighted = run_eval(words)
    file = run / "0" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "class_weights": None}), encoding="utf-8")
    plain = run_eval([*words, "--no-verify"])
    assert weighted.pop("loss") != plain.pop("loss")
    assert weighted == plain


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["onehot", "stability"],
            "--class_weights is for tasks with a class per protein or residue, not for stab",
        ),
        (["onehot", "secondary_structure", "--force_save", "untrained"], "the training split, which --force_save"),
    ],
)
def test_weights_without_classes_are_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        finetune_config([*words, "--data_dir", str(tmp_path), "--class_weights", "balanced"])
