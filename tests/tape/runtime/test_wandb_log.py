"""Metrics for wandb, of which a stand-in records what it is given."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from tape import visualization
from tape.errors import ConfigError
from tape.runtime.wandb_log import WandBWriter, import_wandb


class StandIn:
    """wandb with a single run."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.config = SimpleNamespace(update=lambda values: self.calls.append(("config", values)))

    def init(self, **options: Any) -> StandIn:
        self.calls.append(("init", options))
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("log", values, step))

    def watch(self, module: nn.Module) -> None:
        self.calls.append(("watch", type(module).__name__))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """An installed wandb, and a user who has set a project."""
    module = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_PROJECT", "proteins")
    return module


def test_wandb_is_used_only_with_a_project(wandb: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert import_wandb() is wandb
    monkeypatch.delenv("WANDB_PROJECT")
    assert import_wandb() is None
    assert isinstance(visualization.get(tmp_path, "run", -1), visualization.TBVisualizer)
    with pytest.raises(ConfigError, match="needs the variable WANDB_PROJECT and wandb"):
        visualization.WandBVisualizer(tmp_path, "run")
    assert wandb.calls == []


def test_a_project_without_wandb_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "proteins")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with caplog.at_level(logging.WARNING):
        assert import_wandb() is None
    assert "WANDB_PROJECT is set, but wandb can't be used" in caplog.text
    assert "pip install 'proteinlm[wandb]'" in caplog.text


def test_a_run_that_can_not_start_is_an_error_that_names_the_way_out(wandb: StandIn, tmp_path: Path) -> None:
    def init(**options: Any) -> StandIn:
        raise RuntimeError("no network")

    wandb.init = init  # type: ignore[method-assign]
    with pytest.raises(
        ConfigError, match=r"can't log the run \(no network\); unset WANDB_PROJECT .*WANDB_MODE=offline"
    ):
        WandBWriter(wandb, tmp_path, "run", {})


def test_tapes_visualizer_logs_as_tape_does(wandb: StandIn, tmp_path: Path) -> None:
    viz = visualization.get(tmp_path, "run", 0)
    assert isinstance(viz, visualization.WandBVisualizer)
    viz.log_config({"seed": 42})
    viz.watch(nn.Linear(1, 1))
    viz.log_metrics({"loss": 1.5, "accuracy": 0.5}, "train", 3)
    del viz
    assert wandb.calls == [
        ("init", {"dir": str(tmp_path), "name": "run", "config": {}}),
        ("config", {"seed": 42}),
        ("watch", "Linear"),
        ("log", {"Train Loss": 1.5, "Train Accuracy": 0.5}, 3),
        ("finish",),
    ]
    assert isinstance(visualization.get(tmp_path, "run", 1), visualization.DummyVisualizer)


def test_a_finetuning_run_is_logged(wandb: StandIn, train: Callable[..., Path]) -> None:
    run = train("transformer", "stability", "--exp_name", "mine", "--num_train_epochs", 2, "--num_log_iter", 1)
    (_, started), *logged, ended = wandb.calls
    assert (started["name"], started["config"]["num_train_epochs"]) == (run.name, 2)
    epochs = [(step, values) for _, values, step in logged if "Val Loss" in values]
    assert len(epochs) == 2
    assert any("Train Loss" in values for _, values, _ in logged)
    assert ended == ("finish",)
