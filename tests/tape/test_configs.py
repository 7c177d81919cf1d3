"""Configurations: defaults of the published ones, extra keys kept, errors that name the file or the field."""

from __future__ import annotations

import json

import pytest

from tape.configs import ProteinBertConfig, ProteinConfig, ProteinOneHotConfig
from tape.errors import CheckpointError, ConfigError


def test_defaults_are_tapes():
    values = ProteinBertConfig().to_dict()
    expected = {"vocab_size": 30, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    expected |= {"intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 8096}
    assert expected.items() <= values.items()
    assert values["layer_norm_eps"] == 1e-12


@pytest.mark.parametrize("kind", [ProteinConfig, ProteinBertConfig, ProteinOneHotConfig])
def test_json_round_trip_keeps_extra_keys(kind, tmp_path):
    config = kind(num_labels=7, anything="kept")
    config.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))
    again = kind.from_pretrained(tmp_path, num_labels=3)
    assert (again.anything, again.num_labels) == ("kept", 3)
    assert kind.from_pretrained(tmp_path) == config


def test_impossible_values_are_named():
    with pytest.raises(ConfigError, match="multiple of num_attention_heads 3"):
        ProteinBertConfig(hidden_size=32, num_attention_heads=3)
    with pytest.raises(ConfigError, match="gelu, gelu_tanh"):
        ProteinBertConfig(hidden_act="tanh")
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        ProteinBertConfig(num_hidden_layers=0)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[1]", "not a JSON object")])
def test_bad_files_are_named(tmp_path, text, message):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        ProteinConfig.from_json_file(file)
    assert str(file) in str(caught.value)
    with pytest.raises(CheckpointError, match="No such file"):
        ProteinConfig.from_json_file(tmp_path / "absent.json")
