"""Loading models: what is initialized and what is read."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tape.configs import ProteinConfig
from tape.errors import ConfigError
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertForValuePrediction, ProteinBertModel
from tape.models.modeling_utils import ProteinModel
from tape.registry import registry
from tape.tasks import BUILT_IN_TASKS
from tests.support.small_models import SMALL_CONFIGS

PAIRS = [(task.name, model) for task in BUILT_IN_TASKS for model in task.models]


def build(task: str, model: str) -> Any:
    model_class = registry.get_task_spec(task).get_model(model)
    return model_class(model_class.config_class.from_dict(SMALL_CONFIGS[model]))


@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_a_complete_model_is_loaded_without_drawing_initial_weights(task: str, model: str, tmp_path: Path) -> None:
    saved = build(task, model)
    saved.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    loaded = type(saved).from_pretrained(tmp_path)
    if model != "huggingface":  # constructors of transformers run with values, as those of any third party
        assert torch.equal(torch.get_rng_state(), before)
    expected = {**dict(saved.named_parameters()), **dict(saved.named_buffers())}
    found = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    assert list(found) == list(expected)  # tied weights have one name
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert [type(module) for module in loaded.modules()] == [type(module) for module in saved.modules()]


def test_a_new_head_has_the_values_of_the_seed(tmp_path: Path) -> None:
    encoder: ProteinBertModel = build("embed", "transformer")
    encoder.save_pretrained(tmp_path)
    torch.manual_seed(3)
    expected = ProteinBertForValuePrediction(encoder.config)
    torch.manual_seed(3)
    loaded = ProteinBertForValuePrediction.from_pretrained(tmp_path)
    for name, value in expected.predict.state_dict().items():
        assert torch.equal(loaded.predict.state_dict()[name], value), name


WITH_ENCODER = [pair for pair in PAIRS if pair[0] not in ("embed", "trrosetta") and pair[1] != "onehot"]


@pytest.mark.parametrize(("task", "model"), WITH_ENCODER)
def test_a_model_of_another_task_is_one_line_in_the_log(
    task: str, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a first run shows: that the head is new, without lists of weights, which are details."""
    other = "stability" if task in ("masked_language_modeling", "language_modeling", "remote_homology") else "embed"
    build(other, model).save_pretrained(tmp_path / "other")
    saved = build(task, model)
    with caplog.at_level(logging.DEBUG):
        type(saved).from_pretrained(tmp_path / "other", config=saved.config)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert line.endswith("this new head starts from random ones")
    assert ".weight" not in line
    (details,) = [r.getMessage() for r in caplog.records if "newly initialized weights: " in r.getMessage()]
    assert ".weight" in details


def test_unused_weights_of_a_head_are_details_and_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved: ProteinBertForMaskedLM = build("masked_language_modeling", "transformer")
    state = {**saved.state_dict(), "bert.encoder.layer.9.some.weight": torch.zeros(2)}
    with caplog.at_level(logging.INFO):
        ProteinBertModel.from_pretrained(tmp_path, config=saved.config, state_dict=state)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith(": unused weights: encoder.layer.9.some.weight")


def test_pruned_models_are_loaded_without_drawing_initial_weights(tmp_path: Path) -> None:
    saved: ProteinBertForMaskedLM = build("masked_language_modeling", "transformer")
    saved.prune_heads({0: [1]})
    saved.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    loaded = ProteinBertForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    ids = torch.tensor([[2, 5, 6, 3]])
    torch.testing.assert_close(loaded(ids)[0], saved.eval()(ids)[0])


class Scaled(ProteinModel):
    """A third party's model with a value that is in no state dict."""

    def __init__(self, config: ProteinConfig) -> None:
        super().__init__(config)
        self.linear = torch.nn.Linear(2, 2)
        self.scale = torch.empty(1)
        torch.nn.init.constant_(self.scale, 4.0)

    def forward(self, values: Tensor) -> Tensor:
        return self.scale * self.linear(values)


def test_a_third_partys_constructor_runs_with_values(tmp_path: Path) -> None:
    Scaled(ProteinConfig()).save_pretrained(tmp_path)
    assert Scaled.from_pretrained(tmp_path).scale.tolist() == [4.0]


@pytest.mark.parametrize(("task", "model"), [("embed", name) for name in ("transformer", "lstm", "resnet", "unirep")])
def test_a_configuration_of_the_base_class_builds_a_model(task: str, model: str, tmp_path: Path) -> None:
    """As in public code: ``ProteinBertModel(ProteinConfig.from_pretrained(FILE))``."""
    model_class = registry.get_task_spec(task).get_model(model)
    (tmp_path / "config.json").write_text(json.dumps({**SMALL_CONFIGS[model], "own_key": 1}))
    config = ProteinConfig.from_pretrained(tmp_path / "config.json")
    built = model_class(config)
    expected = model_class.config_class.from_pretrained(tmp_path / "config.json")
    assert built.config is config
    assert type(config) is model_class.config_class
    assert config == expected
    assert list(built.state_dict()) == list(model_class(expected).state_dict())


def test_an_invalid_configuration_of_the_base_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_size 30 is not a multiple of num_attention_heads 4"):
        ProteinBertModel(ProteinConfig(hidden_size=30, num_attention_heads=4))
