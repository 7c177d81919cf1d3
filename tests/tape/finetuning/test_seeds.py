"""Summaries over seeds: mean and standard deviation."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from tape.finetuning.run_directory import RunDirectory
from tape.finetuning.seeds import SeedRun, write_summary
from tape.io.run_layout import BEST_NAME


def run(path: Path, seed: int, losses: list[float], test: float) -> SeedRun:
    directory = RunDirectory.create(path / f"seed_{seed}")
    for epoch, loss in enumerate(losses):
        valid = None if math.isnan(loss) else {"loss": loss, "spearmanr": None}
        directory.add_history({"epoch": epoch, "valid": valid})
        directory.epoch_directory(epoch).mkdir()
    directory.write_pointer(BEST_NAME, losses.index(min(losses)), "loss", min(losses))
    return SeedRun(seed, directory.path, {"test": {"mse": test}})


def test_means_and_standard_deviations(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, 5, [3.0, 1.0, 2.0], 1.0),
        run(tmp_path, 6, [2.0, 4.0], math.inf),
        run(tmp_path, 7, [3.0], 2.0),
    ]
    lines = write_summary(tmp_path, "stability", "onehot", runs)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["seed"], row["directory"], row["epoch"]) for row in written["runs"]] == [
        (5, "seed_5", 1),
        (6, "seed_6", 0),
        (7, "seed_7", 0),
    ]
    assert written["summary"]["valid"]["loss"] == {"mean": 2.0, "std": 1.0, "n": 3}
    assert written["summary"]["valid"]["spearmanr"] == {"mean": None, "std": None, "n": 0}
    assert written["summary"]["test"]["mse"] == {"mean": 1.5, "std": pytest.approx(0.5**0.5), "n": 2}
    assert lines == ["valid loss: 2 +- 1", "test mse: 1.5 +- 0.71"]
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert rows[0] == {
        "split": "valid",
        "metric": "loss",
        "mean": "2.0",
        "std": "1.0",
        "n": "3",
        "seed_5": "1.0",
        "seed_6": "2.0",
        "seed_7": "3.0",
    }
    assert rows[2]["seed_6"] == ""


def test_a_run_without_validation_contributes_its_other_splits(tmp_path: Path) -> None:
    runs = [run(tmp_path, 5, [math.nan], 1.0), run(tmp_path, 6, [2.0], 3.0)]
    assert write_summary(tmp_path, "stability", "onehot", runs) == ["valid loss: 2", "test mse: 2 +- 1.4"]
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert (rows[0]["metric"], rows[0]["n"], rows[0]["seed_5"]) == ("loss", "1", "")


def test_a_single_run_has_no_standard_deviation(tmp_path: Path) -> None:
    assert write_summary(tmp_path, "stability", "onehot", [run(tmp_path, 5, [1.0], 2.0)]) == [
        "valid loss: 1",
        "test mse: 2",
    ]
    assert json.loads((tmp_path / "summary.json").read_text())["summary"]["valid"]["loss"]["std"] is None
