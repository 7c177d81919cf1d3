"""The configuration of the released model, which the generator script writes for a checkpoint without one."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tape.configs import ProteinBertConfig
from tape.models.modeling_bert import ProteinBertForMaskedLM

CONFIG = Path(__file__).resolve().parents[2] / "converter" / "config.json"


def test_the_written_configuration_is_that_of_the_released_model() -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 16}
    tables = {"max_position_embeddings": 2176, "type_vocab_size": 1, "vocab_size": 30}
    config = ProteinBertConfig.from_json_file(CONFIG)
    assert config == ProteinBertConfig(**sizes, **tables)
    text = CONFIG.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert json.loads(text).items() <= config.to_dict().items()


def test_the_model_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = ProteinBertForMaskedLM(ProteinBertConfig.from_json_file(CONFIG))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    unused = 1024 * 1024 + 1024  # bert_tail_dense of the released model: unused, but counted in the published 205.9 M
    assert round((parameters + unused) / 1e6, 1) == 205.9
