"""compare.py: two evaluated runs, protein by protein."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import compare
from tape.errors import ConfigError, DataError
from tape.evaluation_records import EvaluationRecord, write_record
from tape.metrics import Metric

PROTEINS = 12


def add_run(
    root: Path, name: str, results: list[dict[str, Any]], split: str = "cb513", task: str | None = None
) -> Path:
    task = task or "secondary_structure"
    run = root / f"{task}_transformer_{name}"
    run.mkdir(parents=True, exist_ok=True)
    (run / "args.json").write_text("{}")
    metrics = (Metric("accuracy", 0.5, 5, "a fraction"),)
    data = {"name": "chains", "simulated": False}
    record = EvaluationRecord(task, "transformer", split, data, len(results), metrics, "fp32")
    write_record(run / f"eval_{split}.json", record)
    if results:
        with (run / f"results_{split}.pkl").open("wb") as stream:
            pickle.dump(({}, results), stream, protocol=4)
    return run


def predictions(wrong: int) -> list[dict[str, Any]]:
    """Ten residues a protein, of which so many are wrong."""
    target = np.arange(10) % 3
    guessed = np.where(np.arange(10) < wrong, (target + 1) % 3, target)
    scores = np.eye(3, dtype=np.float32)[guessed]
    return [{"id": f"p{index}", "prediction": scores, "target": target} for index in range(PROTEINS)]


def test_the_difference_and_its_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = add_run(tmp_path, "a", predictions(2)), add_run(tmp_path, "b", predictions(5))
    compare.main([str(first), str(second), "--bootstrap", "50"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[:3] == ["secondary_structure", "chains", f"cb513 ({PROTEINS})"]
    assert cells[3:] == ["3-class accuracy", "0.800", "0.500", "+0.300", "[+0.300, +0.300]"]


def test_all_metrics_and_one_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for name, wrong in (("a", 2), ("b", 5)):
        add_run(tmp_path, name, predictions(wrong), "casp12")
        runs.append(add_run(tmp_path, name, predictions(wrong)))
    compare.main([*map(str, runs), "--bootstrap", "20"])
    assert capsys.readouterr().out.count("3-class accuracy") == 2
    compare.main([*map(str, runs), "--bootstrap", "20", "--split", "casp12", "--all_metrics"])
    shown = capsys.readouterr().out
    assert "cb513" not in shown
    assert "accuracy_per_protein" in shown


def test_other_proteins_are_refused(tmp_path: Path) -> None:
    first = add_run(tmp_path, "a", predictions(2))
    others = predictions(2)
    others[3] = {**others[3], "id": "q"}
    for name, results in (("b", others), ("c", predictions(2)[1:])):
        with pytest.raises(DataError, match=r"results_cb513\.pkl are not of the same proteins"):
            compare.main([str(first), str(add_run(tmp_path, name, results))])


def test_what_can_not_be_compared(tmp_path: Path) -> None:
    first = add_run(tmp_path, "a", predictions(2))
    with pytest.raises(ConfigError, match="no evaluation casp12 of the same task and data in common"):
        compare.main([str(first), str(add_run(tmp_path, "b", predictions(2))), "--split", "casp12"])
    with pytest.raises(ConfigError, match=r"results_cb513\.pkl: no predictions there"):
        compare.main([str(first), str(add_run(tmp_path, "c", []))])
    models = [add_run(tmp_path, name, predictions(2), task="masked_language_modeling") for name in "de"]
    with pytest.raises(ConfigError, match="masked_language_modeling are not kept"):
        compare.main([*map(str, models)])


def test_mistakes_are_one_line(tmp_path: Path, run_script: Callable, assert_clean_error: Callable) -> None:
    run = add_run(tmp_path, "a", predictions(2))
    assert_clean_error(run_script("scripts/compare.py", run, tmp_path / "none"), "none", "no such directory")
    assert_clean_error(run_script("scripts/compare.py", run, run, "--bootstrap", 0), "at least 1 resample")
    (run / "eval_cb513.json").write_text(json.dumps({"schema": "other"}))
    assert_clean_error(run_script("scripts/compare.py", run, run), "eval_cb513.json", "schema")
