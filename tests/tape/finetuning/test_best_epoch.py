"""Which epoch is the best, by the loss and by metrics of which a higher value is better."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tape.errors import ConfigError
from tape.finetuning.best_epoch import check_metric, criterion_of, metric_of
from tape.finetuning.run_directory import read_history
from tape.tasks import TASK_TYPE_TRAITS, TaskType

Train = Callable[..., Path]
VALUES = {"loss": 2.0, "perplexity": 7.4, "accuracy": 0.25, "spearmanr": math.nan, "mcc": None}


@pytest.mark.parametrize(("name", "expected"), [("loss", 2.0), ("perplexity", 7.4), ("accuracy", -0.25)])
def test_lower_criteria_are_better(name: str, expected: float) -> None:
    criterion = criterion_of(VALUES, name)
    assert criterion == expected
    assert metric_of(criterion, name) == VALUES[name]


@pytest.mark.parametrize("name", ["spearmanr", "mcc"])
def test_an_undefined_metric_is_none(name: str) -> None:
    assert criterion_of(VALUES, name) is None
    assert criterion_of(None, name) is None


def test_a_metric_that_validation_lacks_is_an_error_that_names_those_it_has() -> None:
    with pytest.raises(ConfigError, match="--metric_for_best_model macro_f1: validation has only loss, perplexity"):
        criterion_of(VALUES, "macro_f1")


@pytest.mark.parametrize("task_type", list(TASK_TYPE_TRAITS))
def test_the_metrics_of_the_log_line_are_accepted(task_type: TaskType) -> None:
    for name in TASK_TYPE_TRAITS[task_type].headline:
        check_metric(name, task_type)
    with pytest.raises(ConfigError, match="--metric_for_best_model mae: for this task, choose one of loss"):
        check_metric("mae", task_type)


def test_the_best_epoch_is_that_of_the_chosen_metric(train: Train) -> None:
    options = ("--save_freq", "improvement", "--num_train_epochs", 4, "--metric_for_best_model", "spearmanr")
    run = train("onehot", "stability", *options, "--learning_rate", 0.3, "--warmup_steps", 0)
    best, history = json.loads((run / "best.json").read_text()), read_history(run)
    found = {record["epoch"]: record["valid"]["spearmanr"] for record in history}
    assert (best["metric"], best["value"]) == ("spearmanr", max(found.values()))
    assert best["epoch"] == max(found, key=lambda epoch: found[epoch])
    saved = {int(path.name) for path in run.iterdir() if path.is_dir()}
    assert saved == {epoch for epoch in found if found[epoch] > max((found[e] for e in range(epoch)), default=-2.0)}


def test_a_metric_that_is_never_defined_is_announced_and_stops_nothing(
    train: Train, write_split: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    records = [{"primary": "ACDEFGHIK"[: 4 + n], "stability_score": [0.5 * n]} for n in range(5)]
    write_split("stability", "train", records)
    data = write_split("stability", "valid", [{**record, "stability_score": [1.0]} for record in records])
    options = ("--metric_for_best_model", "spearmanr", "--patience", 1, "--num_train_epochs", 3, "--log_level", 20)
    run = train("onehot", "stability", *options, data=data)
    assert len(read_history(run)) == 3
    assert "early stopping" not in caplog.text
    assert "--metric_for_best_model spearmanr: undefined in every validation, so that no epoch is" in caplog.text
    assert not (run / "best.json").exists()


def test_a_metric_of_another_task_is_refused_before_anything_is_written(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--metric_for_best_model accuracy: for this task, .* loss, spearmanr"):
        train("onehot", "stability", "--metric_for_best_model", "accuracy")
    assert not list(tmp_path.rglob("args.json"))


def test_a_resumed_run_keeps_the_metric_of_its_best_epoch(train: Train) -> None:
    options = ("--num_train_epochs", 1, "--metric_for_best_model", "spearmanr")
    run = train("onehot", "stability", *options)
    more = ("--from_pretrained", run, "--resume_from_checkpoint", "--num_train_epochs", 2)
    with pytest.raises(ConfigError, match="metric_for_best_model"):
        train("onehot", "stability", *more, "--metric_for_best_model", "loss")
    train("onehot", "stability", *more)
    assert json.loads((run / "best.json").read_text())["metric"] == "spearmanr"
    assert len(read_history(run)) == 2


def test_a_run_from_before_the_choice_of_a_metric_is_resumed_with_the_loss(train: Train) -> None:
    run = train("onehot", "stability", "--num_train_epochs", 1)
    arguments = json.loads((run / "args.json").read_text())
    del arguments["metric_for_best_model"]
    (run / "args.json").write_text(json.dumps(arguments))
    more = ("--from_pretrained", run, "--resume_from_checkpoint", "--num_train_epochs", 2)
    with pytest.raises(ConfigError, match="can't be changed on resume"):
        train("onehot", "stability", *more, "--metric_for_best_model", "spearmanr")
    train("onehot", "stability", *more)
    assert json.loads((run / "best.json").read_text())["metric"] == "loss"
