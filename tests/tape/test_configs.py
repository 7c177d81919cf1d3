"""Configurations: published defaults, additional keys, and errors that name the file or the field."""

from __future__ import annotations

import json

import pytest

from tape.configs import ProteinBertConfig, ProteinConfig, ProteinOneHotConfig
from tape.errors import CheckpointError, ConfigError


def test_defaults_are_those_of_tape():
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


def test_a_constructor_of_others_need_not_take_the_settings_of_the_base_class(tmp_path):
    """As in public code, whose classes have no ``**kwargs``; a saved configuration has the base class's settings."""

    class Theirs(ProteinConfig):
        def __init__(self, vocab_size_or_config_json_file, path="", hidden_size=-1):
            super().__init__()
            self.vocab_size = vocab_size_or_config_json_file
            self.path, self.hidden_size = path, hidden_size

    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8, "num_labels": 5, "rate": 0.5}))
    config = Theirs.from_pretrained(tmp_path, path="model.pt")
    assert (config.vocab_size, config.path, config.hidden_size) == (-1, "model.pt", 8)
    assert (config.num_labels, config.rate) == (5, 0.5)
    config.save_pretrained(tmp_path)
    assert Theirs.from_pretrained(tmp_path) == config
    (tmp_path / "config.json").write_text(json.dumps({"to_dict": 1}))
    with pytest.raises(ConfigError, match=r"config\.json: .*to_dict.* can't be the name of a setting"):
        Theirs.from_pretrained(tmp_path)


def test_impossible_values_are_named():
    with pytest.raises(ConfigError, match="multiple of num_attention_heads 3"):
        ProteinBertConfig(hidden_size=32, num_attention_heads=3)
    with pytest.raises(ConfigError, match="gelu, gelu_tanh"):
        ProteinBertConfig(hidden_act="tanh")
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        ProteinBertConfig(num_hidden_layers=0)
    with pytest.raises(ConfigError, match=r"contact_dropout must be in \[0, 1\], not 2"):
        ProteinOneHotConfig(contact_dropout=2)
    for value in (-1, 2.5, "64"):
        with pytest.raises(ConfigError, match="contact_separations must be an integer from 0 to 1,048,576"):
            ProteinBertConfig(contact_separations=value)


def test_only_transformers_have_heads_to_prune():
    assert ProteinOneHotConfig(pruned_heads={}).pruned_heads == {}
    with pytest.raises(ConfigError, match="no attention heads"):
        ProteinOneHotConfig(pruned_heads={0: [1]})


def test_pruned_heads_are_sorted_and_written_only_if_there_are_any(tmp_path):
    assert "pruned_heads" not in ProteinBertConfig(pruned_heads={}).to_dict()
    config = ProteinBertConfig(pruned_heads={"3": [5, 0, 5], 1: []})
    assert config.pruned_heads == {3: [0, 5]}
    config.prune_heads({3: [1], 0: {2}})
    assert config.pruned_heads == {0: [2], 3: [0, 1, 5]}
    config.save_pretrained(tmp_path)
    assert ProteinBertConfig.from_pretrained(tmp_path).pruned_heads == config.pruned_heads


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([1], "must map layers to heads"),
        ({0: "12"}, "must map layers to heads"),
        ({0: [0.5]}, "must map layers to heads"),
        ({"first": [1]}, "must map layers to heads"),
        ({12: [1]}, r"can't prune heads \[1\] of layer 12: .* layers 0 to 11 with heads 0 to 11"),
        ({0: [1, 12]}, r"can't prune heads \[1, 12\] of layer 0"),
        ({0: [-1]}, r"can't prune heads \[-1\] of layer 0"),
        ({0: range(1, 12)}, "all 12 heads of layer 0"),
    ],
)
def test_heads_that_cannot_be_pruned_change_nothing(heads, message):
    config = ProteinBertConfig(pruned_heads={0: [0]})
    with pytest.raises(ConfigError, match=message):
        config.prune_heads(heads)
    assert config.pruned_heads == {0: [0]}
    with pytest.raises(ConfigError):
        ProteinBertConfig(pruned_heads=heads if heads != {0: range(1, 12)} else {0: range(12)})


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[1]", "not a JSON object")])
def test_bad_files_are_named(tmp_path, text, message):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        ProteinConfig.from_json_file(file)
    assert str(file) in str(caught.value)
    with pytest.raises(CheckpointError, match="No such file"):
        ProteinConfig.from_json_file(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 1 << 40),
        ("hidden_size", 1 << 62),
        ("intermediate_size", 10**30),
        ("vocab_size", -1),
        ("max_position_embeddings", 512.0),
        ("num_attention_heads", True),
        ("contact_num_blocks", 1 << 40),
        ("num_labels", 1 << 62),
    ],
)
def test_sizes_out_of_range_are_refused_before_a_model_is_built(tmp_path, name, value):
    (tmp_path / "config.json").write_text(json.dumps({name: value}))
    with pytest.raises(ConfigError, match=rf"config\.json: {name} must be an integer from -?\d+ to [\d,]+, not "):
        ProteinBertConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["__class__", "__dict__", "to_dict", "_check", "self"])
def test_names_that_python_or_the_class_uses_are_refused(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({name: 3}))
    with pytest.raises(ConfigError, match=rf"config\.json: .*{name}"):
        ProteinBertConfig.from_pretrained(tmp_path)


def test_a_yes_or_no_setting_given_as_text_is_refused():
    """The text "false" would count as true."""
    with pytest.raises(ConfigError, match="apply_final_ln must be one of False, True, not 'false'"):
        ProteinBertConfig(apply_final_ln="false")


def test_a_value_of_any_length_is_quoted_shortly():
    with pytest.raises(ConfigError) as caught:
        ProteinBertConfig(hidden_act="x" * 10**6)
    assert len(str(caught.value)) < 500
