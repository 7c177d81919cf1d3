"""The model type and the vocabulary of a model directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tape.errors import CheckpointError, ConfigError
from tape.evaluation.model_type import model_type_of, vocabulary_of
from tape.registry import registry
from tests.support.small_models import SMALL_CONFIGS

ENCODERS = ("transformer", "resnet", "lstm", "unirep", "onehot")


@pytest.mark.parametrize("model_type", ENCODERS)
def test_the_type_follows_from_the_configuration(model_type: str, tmp_path: Path) -> None:
    task = "stability" if model_type == "onehot" else "embed"
    made = registry.get_task_model(model_type, task, **SMALL_CONFIGS[model_type])
    made.save_pretrained(tmp_path / "model")
    assert model_type_of(tmp_path / "model") == model_type


def test_the_type_of_a_run_is_that_of_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    (tmp_path / "args.json").write_text(json.dumps({"model_type": "resnet"}))
    assert model_type_of(tmp_path / "0") == "resnet"
    (tmp_path / "args.json").write_text(json.dumps({"model_type": "of another program"}))
    assert model_type_of(tmp_path / "0") == "transformer"


def test_an_unknown_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"config\.json: the settings of no built-in model type; give model_type=NAME"
    ):
        model_type_of(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json there, so not a model directory"):
        model_type_of(tmp_path)


def test_the_vocabulary_is_that_of_its_file(tmp_path: Path) -> None:
    assert (vocabulary_of(tmp_path, "unirep"), vocabulary_of(tmp_path, "lstm")) == ("unirep", "iupac")
    (tmp_path / "vocabulary.json").write_text(json.dumps({"name": "unirep"}))
    assert vocabulary_of(tmp_path, "lstm") == "unirep"
    (tmp_path / "vocabulary.json").write_text(json.dumps({"name": "klingon"}))
    with pytest.raises(ConfigError, match="unknown vocabulary 'klingon'; there are iupac, unirep"):
        vocabulary_of(tmp_path, "lstm")
