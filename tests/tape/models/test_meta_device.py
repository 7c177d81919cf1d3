"""Models without memory for their weights."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from tape.configs import ProteinBertConfig
from tape.models.meta_device import on_meta_device
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


def test_building_does_not_import_the_compiler() -> None:
    code = """
import sys
from tape.configs import ProteinBertConfig
from tape.models.meta_device import on_meta_device
from tape.models.modeling_bert import ProteinBertForMaskedLM
with on_meta_device():
    ProteinBertForMaskedLM(ProteinBertConfig(num_hidden_layers=1))
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_values_are_initialized_afterwards() -> None:
    with on_meta_device():
        pass
    assert nn.Linear(4, 4).weight.abs().sum() > 0
