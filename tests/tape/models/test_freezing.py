"""``--freeze``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tape.errors import ConfigError
from tape.models.freezing import encoder_of, freeze_encoder, set_training_mode
from tape.registry import registry


def model_for(task: str, config: Path, model_type: str = "transformer") -> nn.Module:
    return registry.get_task_model(model_type, task, config)


def test_a_frozen_encoder_has_neither_gradients_nor_dropout(small_config: Path) -> None:
    model = registry.get_task_model("transformer", "stability", small_config, hidden_dropout_prob=0.5)
    encoder = encoder_of(model)
    assert encoder is model.bert
    set_training_mode(model)
    assert encoder.training
    freeze_encoder(model)
    set_training_mode(model)
    assert not encoder.training
    assert model.predict.training
    ids, targets = torch.tensor([[2, 5, 6, 7, 3]]), torch.tensor([[1.0]])
    (loss, _), prediction = model(ids, targets=targets)
    assert torch.equal(model(ids)[0], prediction)  # no dropout of the encoder
    loss.backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.predict.parameters())


def test_what_can_not_be_frozen_is_refused(small_config: Path) -> None:
    with pytest.raises(ConfigError, match="ProteinOneHotForValuePrediction has no encoder with weights"):
        freeze_encoder(registry.get_task_model("onehot", "stability"))
    with pytest.raises(ConfigError, match="ProteinBertModel has no encoder"):
        freeze_encoder(model_for("embed", small_config))
    with pytest.raises(ConfigError, match="Linear has no encoder"):
        freeze_encoder(nn.Linear(2, 2))
