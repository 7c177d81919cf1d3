"""Models without memory for their weights."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from tape.configs import ProteinBertConfig
from tape.models.meta_device import allocate, on_meta_device
from tape.models.modeling_bert import ProteinBertForMaskedLM

CONFIG = ProteinBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


def test_parameters_have_names_shapes_and_dtypes_but_no_memory() -> None:
    with on_meta_device():
        outline = ProteinBertForMaskedLM(CONFIG)
    assert all(parameter.is_meta for parameter in outline.parameters())
    expected = {name: (value.shape, value.dtype) for name, value in ProteinBertForMaskedLM(CONFIG).state_dict().items()}
    assert {name: (value.shape, value.dtype) for name, value in outline.state_dict().items()} == expected


def test_the_random_state_does_not_change() -> None:
    before = torch.get_rng_state()
    with on_meta_device():
        nn.LSTM(4, 4)
        nn.Conv1d(4, 4, 3)
        torch.empty(3).normal_()
        torch.empty(3).uniform_()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "model",
    [
        "modeling_bert.ProteinBertForMaskedLM",
        "modeling_bert.ProteinBertForValuePrediction",
        "modeling_bert.ProteinBertForSequenceToSequenceClassification",
        "modeling_unirep.UniRepModel",
    ],
)
def test_building_and_allocating_import_neither_the_compiler_nor_sympy(model: str) -> None:
    module, name = model.split(".")
    code = f"""
import sys
from tape.models.{module} import {name}
from tape.models.meta_device import allocate, on_meta_device
with on_meta_device():
    model = {name}({name}.config_class(hidden_size=16, num_attention_heads=2, num_hidden_layers=1))
allocate(model, "cpu")
sys.exit(bool({{"torch._dynamo", "sympy"}} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("options", [{}, {"dim": 1}, {"dim": 1, "keepdim": True}, {"dim": (0, 1)}, {"keepdim": True}])
def test_norms_have_their_shape(options: dict[str, Any]) -> None:
    with on_meta_device():
        shape = torch.empty(3, 4).norm(**options).shape
    assert shape == torch.ones(3, 4).norm(**options).shape


def test_allocated_parameters_are_those_of_the_model() -> None:
    with on_meta_device():
        model = ProteinBertForMaskedLM(CONFIG)
    model.bert.embeddings.requires_grad_(False)
    allocate(model, "cpu")
    model.tie_weights()
    plain = ProteinBertForMaskedLM(CONFIG)
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(plain.state_dict())
    assert model.mlm.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == [
        f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")
    ]


def test_values_are_initialized_afterwards() -> None:
    with on_meta_device():
        pass
    assert nn.Linear(4, 4).weight.abs().sum() > 0
