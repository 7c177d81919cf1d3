"""The directories for the results of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tape import ProteinBertConfig, ProteinBertForValuePrediction
from tape.errors import ConfigError
from tape.evaluation.results import results_directory
from tape.main import run_eval


@pytest.mark.parametrize("name", ["a\0b", 3])
def test_results_of_a_model_whose_name_no_directory_can_have_are_not_overwritten(tmp_path: Path, name: object) -> None:
    (tmp_path / "eval_test.json").write_text(json.dumps({"model_dir": name}))
    with pytest.raises(ConfigError, match=r"contains the results of .* \(eval_test\.json\); choose another"):
        results_directory(tmp_path, tmp_path / "model")


def test_the_directory_of_a_run_is_its_model_in_python_and_holds_its_results(
    train: Callable[..., Path], small_data: Path
) -> None:
    """Scripts for TAPE, which has one model per run, load ``results/RUN`` and read ``results/RUN/results.pkl``."""
    run = train("transformer", "stability", "--num_train_epochs", 2)
    best = run / json.loads((run / "best.json").read_text())["directory"]
    model, expected = (ProteinBertForValuePrediction.from_pretrained(path) for path in (run, best))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.state_dict().items())
    assert ProteinBertConfig.from_pretrained(run) == expected.config
    words = ["--data_dir", str(small_data), "--log_level", "40"]
    run_eval(["transformer", "stability", str(run), *words])
    assert (run / "results.pkl").read_bytes() == (best / "results.pkl").read_bytes()
    run = train("transformer", "stability", "--num_train_epochs", 1, "--overwrite")
    assert not (run / "results.pkl").exists()
    run_eval(["transformer", "stability", str(run / "0"), *words])
    assert not (run / "results.pkl").exists()
