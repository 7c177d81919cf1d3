"""Imports of tape-proteins 0.5 from ``tape.training``, ``tape.optimization`` and ``tape.utils``."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tape.datasets import LMDBDataset
from tape.errors import ConfigError
from tape.optimization import AdamW, WarmupLinearSchedule
from tape.training import run_embed, run_eval, run_train
from tape.utils import get_expname, set_random_seeds, write_lmdb


def test_keyword_arguments_train_evaluate_and_embed(
    tmp_path: Path, small_data: Path, small_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"data_dir": str(small_data), "log_level": 40, "model_config_file": str(small_config)}
    run = run_train("transformer", "stability", num_train_epochs=1, exp_name="run", **options)
    assert json.loads((run / "args.json").read_text())["given_options"] == [
        "data_dir",
        "exp_name",
        "log_level",
        "model_config_file",
        "model_type",
        "num_train_epochs",
        "task",
    ]
    metrics = run_eval("transformer", "stability", str(run), data_dir=str(small_data), metrics=["mse"], log_level=40)
    assert set(metrics) == {"mse"}
    (tmp_path / "a.fasta").write_text(">a\nMKV\n")
    assert run_embed("transformer", "a.fasta", "a.npz", str(run), log_level=40) == Path("a.npz")
    with pytest.raises(ConfigError, match="there is no option 'epochs'"):
        run_train("transformer", "stability", epochs=1)


def test_options_have_the_types_that_tape_takes(
    tmp_path: Path, small_data: Path, small_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TAPE's defaults, log levels by name, numbers of numpy, and no metrics; a wrong value is named."""
    monkeypatch.chdir(tmp_path)
    defaults = {
        "loss_scale": 0,
        "exp_name": None,
        "from_pretrained": None,
        "local_rank": -1,
        "patience": -1,
        "fp16": False,
    }
    options = {"data_dir": small_data, "model_config_file": small_config, "num_train_epochs": 1, "log_level": "ERROR"}
    run = run_train(
        model_type="transformer",
        task="stability",
        batch_size=np.int64(5),
        learning_rate=np.float32(1e-3),
        **defaults,
        **options,
    )
    args = json.loads((run / "args.json").read_text())
    assert (args["batch_size"], args["log_level"], args["fp16"]) == (5, 40, False)
    assert "mse" in run_eval("transformer", "stability", run, data_dir=small_data, metrics=(), log_level="WARNING")
    with pytest.raises(ConfigError, match="argument --batch_size: invalid int value: 'many'"):
        run_train("transformer", "stability", batch_size="many", **options)
    with pytest.raises(ConfigError, match="argument --model_config_file: 'absent.json' is not an existing file"):
        run_train("transformer", "stability", model_config_file="absent.json")


def test_experiment_names_seeding_and_other_functions_of_tape_utils(tmp_path: Path) -> None:
    assert get_expname("mine") == "mine"
    assert get_expname(None, "stability", "onehot").startswith("stability_onehot_")
    drawn = []
    for _ in range(2):
        set_random_seeds(3, n_gpu=0)
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert drawn[0] == drawn[1]
    write_lmdb(tmp_path / "x.lmdb", [{"primary": "MKV", "id": "a"}])
    assert LMDBDataset(tmp_path / "x.lmdb")[0]["primary"] == "MKV"


def test_optimizer_and_schedule_of_tape_are_importable() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([weight], lr=1.0)
    schedule = WarmupLinearSchedule(optimizer, warmup_steps=2, t_total=4)
    rates = []
    for _ in range(4):
        weight.grad = torch.ones(2)
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.5, 1.0, 0.5, 0.0]
