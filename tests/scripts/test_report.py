"""The table: rows, columns, marks of simulated data; and that pictures are drawn."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from scripts import report
from tape.errors import CheckpointError, ConfigError


def add_run(root: Path, task: str, model: str, suffix: str, split: str, simulated: bool, **values: float) -> Path:
    run = root / f"{task}_{model}_{suffix}"
    directory = run / "1"
    directory.mkdir(parents=True, exist_ok=True)
    (run / "args.json").write_text("{}")
    history = [{"epoch": e, "train": {"loss": 1.0}, "valid": {"loss": 1.0 / (e + 1)}} for e in range(2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    content = {
        "schema": "proteinlm-eval",
        "version": 1,
        "task": task,
        "model": model,
        "split": split,
        "proteins": 5,
        "data": {"name": "a set", "simulated": simulated},
        "metrics": [{"name": name, "value": value, "n": 5, "definition": ""} for name, value in values.items()],
    }
    (directory / f"eval_{split}.json").write_text(json.dumps(content))
    return directory


@pytest.fixture
def results(tmp_path: Path) -> Path:
    root = tmp_path / "results"
    add_run(root, "secondary_structure", "transformer", "pretrained", "test", False, accuracy=0.7)
    add_run(root, "secondary_structure", "transformer", "random", "test", False, accuracy=0.6)
    add_run(root, "secondary_structure", "onehot", "onehot", "test", False, accuracy=0.5)
    add_run(root, "stability", "transformer", "pretrained", "test", True, spearmanr=0.25)
    add_run(root, "stability", "transformer", "mine", "test", True, spearmanr=0.5)
    return root


def test_rows_and_columns(results):
    rows = report.make_rows(report.read_evaluations([results]))
    assert report.columns_of(rows) == ["one-hot", "random weights", "pretrained", "mine"]
    text = report.markdown_table(rows)
    assert "| secondary_structure | a set | test (5) | 3-class accuracy | 0.500 | 0.600 | **0.700** | - |" in text
    assert "| stability | a set (simulated) | test (5) | Spearman's rho | - | - | 0.250 | **0.500** |" in text


def test_csv_has_full_precision(results):
    rows = report.make_rows(report.read_evaluations([results]))
    records = list(csv.DictReader(io.StringIO(report.csv_table(rows))))
    assert records[0]["pretrained"] == "0.7"
    assert (records[1]["simulated"], records[1]["mine"]) == ("True", "0.5")


def test_tables_and_pictures_are_written(results, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    directory = add_run(results, "contact_prediction", "transformer", "pretrained", "test", False, precision_at_l5=0.2)
    rng = np.random.default_rng(0)
    target = np.full((30, 30), -1)
    target[np.triu_indices(30, 6)] = rng.integers(0, 2, len(np.triu_indices(30, 6)[0]))
    target = np.maximum(target, target.T)
    entry = {"id": "1abc", "prediction": rng.normal(size=(30, 30, 2)).astype(np.float32), "target": target}
    with (directory / "results_test.pkl").open("wb") as stream:
        pickle.dump(({}, [entry] * 3), stream, protocol=4)
    pretraining = tmp_path / "checkpoints"
    pretraining.mkdir()
    records = [{"iteration": i, "lm_loss": 3.0 - i / 100} for i in range(1, 60)]
    records.append({"iteration": 59, "validation_loss": 2.6})
    (pretraining / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    out = tmp_path / "report"
    report.main([str(results), "--pretraining", str(pretraining), "--out", str(out)])
    expected = {"table.md", "table.csv", "finetuning.png", "pretraining.png", "contact_map.png"}
    assert {path.name for path in out.iterdir()} == expected
    assert all(path.stat().st_size > 5000 for path in out.glob("*.png"))
    assert (out / "table.md").read_text() in capsys.readouterr().out


def test_of_several_epochs_the_best_on_validation_data_counts(results, tmp_path):
    run = results / "secondary_structure_transformer_pretrained"
    shutil.copytree(run / "1", run / "10")
    (run / "10" / "eval_test.json").write_text((run / "1" / "eval_test.json").read_text().replace("0.7", "0.1"))
    with pytest.raises(ConfigError, match="both are secondary_structure test"):
        report.read_evaluations([results])
    (run / "best.json").write_text('{"directory": "10"}')
    assert report.make_rows(report.read_evaluations([results]))[0].values["pretrained"] == 0.1
    shutil.copytree(results, tmp_path / "again")
    with pytest.raises(ConfigError, match="give one of them"):
        report.read_evaluations([results, tmp_path / "again"])


def test_nothing_to_report_and_foreign_files_are_clear_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"no eval_SPLIT\.json"):
        report.read_evaluations([tmp_path])
    with pytest.raises(ConfigError, match="no such directory"):
        report.read_evaluations([tmp_path / "absent"])
    file = tmp_path / "eval_test.json"
    for text in ("{", "{}", '{"schema": "other", "version": 1}'):
        file.write_text(text)
        with pytest.raises(CheckpointError, match=r"eval_test\.json"):
            report.read_evaluations([tmp_path])
