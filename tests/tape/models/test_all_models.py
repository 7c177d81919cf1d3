"""Every task with every model: train, save, resume, evaluate; embed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.finetuning.run_directory import read_history
from tape.main import run_embed, run_eval, run_train
from tape.registry import registry
from tape.tasks import BUILT_IN_TASKS, TaskType
from tests.support.small_models import SMALL_CONFIGS

PAIRS = [(task.name, model) for task in BUILT_IN_TASKS for model in task.models]
TRAINED = [(task, model) for task, model in PAIRS if registry.get_task_spec(task).task_type != TaskType.EMBEDDING]
EVALUATED = {
    "remote_homology": "test_fold_holdout",
    "secondary_structure": "cb513",
    "secondary_structure_8": "cb513",
    "masked_language_modeling": "holdout",
    "language_modeling": "holdout",
    "trrosetta": "valid",
}


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with ``MODEL.json`` of every architecture; the current one is elsewhere and empty."""
    for model, values in SMALL_CONFIGS.items():
        (tmp_path / f"{model}.json").write_text(json.dumps(values))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def words(model: str, task: str, *options: object) -> list[str]:
    tokenizer = ["--tokenizer", "unirep"] if model == "unirep" else []
    return [model, task, *map(str, options), "--log_level", "40", *tokenizer]


def test_the_table_of_tasks_and_models_is_complete() -> None:
    encoders = {"transformer", "lstm", "resnet", "unirep", "huggingface"}
    labeled = dict.fromkeys(
        ("fluorescence", "stability", "remote_homology", "contact_prediction", "secondary_structure"),
        encoders | {"onehot"},
    )
    expected = {
        **labeled,
        "embed": encoders,
        "masked_language_modeling": {"transformer", "resnet", "huggingface"},
        "language_modeling": {"lstm", "unirep"},
        "trrosetta": {"trrosetta"},
    }
    assert {task: set(registry.get_task_spec(task).models) for task in expected} == expected
    for task, model in PAIRS:
        assert registry.get_task_spec(task).get_model(model).config_class.__name__.endswith("Config")


@pytest.mark.parametrize(("task", "model"), TRAINED)
def test_every_task_trains_saves_resumes_and_evaluates(task: str, model: str, configs: Path, small_data: Path) -> None:
    data = ["--data_dir", small_data]
    options = [*data, "--batch_size", 4, "--learning_rate", 1e-3, "--time_or_name", "t", "--num_train_epochs"]
    run = run_train(words(model, task, *options, 1, "--model_config_file", configs / f"{model}.json"))
    assert run == Path("results") / f"{task}_{model}_t"
    for name in ("args.json", "log", "metrics.jsonl", "best.json", "latest.json"):
        assert (run / name).is_file(), name
    for name in ("config.json", "pytorch_model.bin", "checkpoint.bin"):
        assert (run / "0" / name).is_file(), name
    assert list(Path("logs", run.name).iterdir())
    again = run_train(words(model, task, *options, 2, "--from_pretrained", run, "--resume_from_checkpoint"))
    assert again.samefile(run)
    assert [record["epoch"] for record in read_history(run)] == [0, 1]
    check_evaluation(model, task, run / "1", data)


def check_evaluation(model: str, task: str, directory: Path, data: list[Any]) -> None:
    split = EVALUATED.get(task, "test")
    metrics = run_eval(words(model, task, directory, *data, "--split", split))
    assert np.isfinite(metrics["loss"])
    saved, results = pickle.loads((directory / "results.pkl").read_bytes())
    assert saved == pytest.approx(metrics, rel=0, abs=0, nan_ok=True)
    assert len(results) == 5
    report = json.loads((directory / f"eval_{split}.json").read_text())
    assert report["data"]["simulated"] is True
    assert report["data"]["name"].startswith("toy ")
    assert {metric["name"] for metric in report["metrics"]} == set(metrics)
    assert all(metric["definition"] for metric in report["metrics"])
    assert report["bootstrap"]["resamples"] == 1000


@pytest.mark.parametrize("model", registry.get_task_spec("embed").models)
def test_every_encoder_embeds(model: str, configs: Path, small_data: Path) -> None:
    options = ["--force_save", "saved", "--data_dir", small_data, "--model_config_file", configs / f"{model}.json"]
    saved = run_train(words(model, "stability", *options))
    proteins = Path("proteins.fasta")
    proteins.write_text(">a\nMKVL\n>b\nACDEFGHIKL\n")
    path = run_embed([model, str(proteins), "out.npz", str(saved), *words(model, "")[2:]])
    with np.load(path, allow_pickle=True) as arrays:
        assert set(arrays.files) == {"a", "b"}
        encoder = registry.get_task_spec("embed").get_model(model).from_pretrained(saved)
        assert arrays["b"].item()["avg"].shape == (encoder.state_size,)
        assert arrays["b"].item()["pooled"].shape == (encoder.pooled_size,)
