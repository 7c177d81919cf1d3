"""para.sh and sweep.sh, with tiny models and data."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tape.io.lmdb_store import write_lmdb

SHELLS = Path("scripts") / "shells"
TINY = ["--config", "head_hidden_size=8", "--num_workers", "0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with ./data: secondary structure without casp12 and ts115, stability."""
    text = "ACDEFGHIKLMNPQRSTVWY"
    for split in ("train", "valid", "cb513", "test"):
        proteins = [{"primary": text[i:], "id": str(i), "ss3": [0] * (20 - i)} for i in range(6)]
        write_lmdb(tmp_path / f"data/secondary_structure/secondary_structure_{split}.lmdb", proteins)
        proteins = [{"primary": text[i:], "id": str(i), "stability_score": [float(i)]} for i in range(6)]
        write_lmdb(tmp_path / f"data/stability/stability_{split}.lmdb", proteins)
    return tmp_path


def run(root: Path, folder: Path, script: str, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "MODEL": "", "MODEL_TYPE": "onehot"}
    command = ["bash", str(root / SHELLS / script), *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
def test_every_saved_epoch_is_evaluated_on_the_splits_that_exist(repository_root: Path, folder: Path) -> None:
    result = run(repository_root, folder, "para.sh", "ss", 4, 3, 0.001, 1, 2, "--", *TINY)
    assert result.returncode == 0, result.stderr
    directory = folder / "results/ss/secondary_structure_onehot_task-ss-bs-4-ep-3-lr-0.001"
    found = {path.parent.name + "/" + path.name for path in directory.glob("*/eval_*.json")}
    # the last epoch too (bug 40 in docs/compatibility.md)
    assert found == {f"{epoch}/eval_cb513.json" for epoch in (1, 2)}
    assert "no split ts115 in ./data/secondary_structure: not evaluated" in result.stderr


@pytest.mark.slow
def test_learning_rates_are_ranked_by_validation_metric(repository_root: Path, folder: Path) -> None:
    result = run(repository_root, folder, "sweep.sh", "st", 2, "1e-2", "1e-5", "--", *TINY, "--num_train_epochs", 2)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((folder / "results/sweep/stability.csv").read_text().splitlines()))
    assert {row["learning_rate"] for row in rows} == {"1e-2", "1e-5"}
    means = [float(row["valid_spearmanr"]) for row in rows]
    assert means == sorted(means, reverse=True)
    for row in rows:
        summary = json.loads((folder / row["directory"] / "summary.json").read_text())
        assert summary["summary"]["valid"]["spearmanr"]["mean"] == pytest.approx(float(row["valid_spearmanr"]))
        assert [seed["seed"] for seed in summary["runs"]] == [42, 43]
    assert f"best of stability: learning rate {rows[0]['learning_rate']}, valid spearmanr" in result.stdout
    assert not list(folder.glob("results/**/eval_*.json"))  # test splits are not read


def test_wrong_arguments_print_the_usage(repository_root: Path, folder: Path) -> None:
    for script in ("para.sh", "sweep.sh"):
        result = run(repository_root, folder, script, "ss")
        assert (result.returncode, "usage: " in result.stderr) == (2, True)
        result = run(repository_root, folder, script, "xx", 4, 3, 0.001, 1)
        assert result.returncode == 2
        assert "unknown task 'xx'; the tasks are ss, cc, rh, fl, st" in result.stderr
        assert run(repository_root, folder, script, "--help").stdout.startswith(("Finetunes", "Chooses"))
