"""Arguments that could make a checkpoint another model are refused by name, unless the user declares them neutral."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.convert import ConversionRequest, convert
from converter.formats.detection import open_source
from converter.formats.megatron.argument_names import NEUTRAL_NAMES
from converter.formats.megatron.arguments import SUPPORTED_VALUES, USED_NAMES, check_arguments
from converter.options import SourceOptions
from tape.errors import CheckpointError, ConfigError
from tests.support.megatron_writer import Truth, make_truth, write_megatron

HERE = Path("mega")
# the arguments of pretrain_bert.py with their defaults in each version, and the fields of TransformerConfig
RECORDED = json.loads((Path(__file__).parent / "data" / "megatron_arguments.json").read_text())


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("add_bias_linear", False),
        ("apply_layernorm_1p", True),
        ("attention_output_gate", True),
        ("enable_mhc_connections", True),
        ("apply_residual_connection_post_layernorm", True),
        ("multi_latent_attention", True),
        ("normalization", "RMSNorm"),
        ("num_experts", 8),
        ("position_embedding_type", "rope"),
        ("qk_layernorm", True),
        ("spec", ["megatron.core.models.gpt.gpt_layer_specs", "x"]),
        ("softmax_type", "off-by-one"),
        ("squared_relu", True),
        ("swiglu", True),
        ("untie_embeddings_and_output_weights", True),
        ("use_rotary_position_embeddings", True),
        ("window_size", (128, 0)),
    ],
)
def test_an_argument_of_another_model_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"mega: was trained with {name} .*give --assume-neutral {name}"):
        check_arguments({"num_layers": 2, name: value}, HERE, ())
    assert check_arguments({"num_layers": 2, name: value}, HERE, (name,)) == {name: value}


@pytest.mark.parametrize("value", [3, "yes", True, [1], torch.zeros(2)])
def test_an_unknown_argument_is_refused_by_name(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"no known version of Megatron-LM .*--assume-neutral residual_scaling"):
        check_arguments({"residual_scaling": value}, HERE, ())


@pytest.mark.parametrize("value", [None, False, "", (), []])
def test_an_unknown_argument_that_is_not_used_is_accepted(value: object) -> None:
    assert check_arguments({"residual_scaling": value}, HERE, ()) == {}


def test_all_refused_arguments_are_named_at_once() -> None:
    with pytest.raises(CheckpointError, match="--assume-neutral squared_relu --assume-neutral swiglu$"):
        check_arguments({"swiglu": True, "squared_relu": True}, HERE, ())


def test_arguments_of_megatron_that_do_not_change_the_model_are_accepted() -> None:
    arguments = {
        "attention_softmax_in_fp32": True,
        "apply_query_key_layer_scaling": True,
        "data_path": ["pfam"],
        "lr": 1e-4,
        "masked_softmax_fusion": True,
        "normalization": "LayerNorm",
        "params_dtype": torch.float16,
        "position_embedding_type": "learned_absolute",
        "rotary_percent": 1.0,
        "skip_seq_longer_than": 2176,
    }
    assert check_arguments(arguments, HERE, ()) == {}


def test_an_assumed_name_that_the_checkpoint_lacks_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--assume-neutral swigl: mega has no such argument"):
        check_arguments({"swiglu": True}, HERE, ("swigl",))


def test_every_name_is_in_one_table() -> None:
    assert not NEUTRAL_NAMES.keys() & USED_NAMES.keys()
    assert not (NEUTRAL_NAMES.keys() | USED_NAMES.keys()) & SUPPORTED_VALUES.keys()


def test_every_argument_of_megatron_core_is_in_a_table() -> None:
    known = NEUTRAL_NAMES.keys() | USED_NAMES.keys() | SUPPORTED_VALUES.keys()
    assert not set(RECORDED["defaults"]) - known
    assert not set(RECORDED["fields_of_transformer_config"]) - known


def test_the_defaults_of_all_versions_of_megatron_core_are_accepted() -> None:
    for name, values in RECORDED["defaults"].items():
        for value in values:
            assert check_arguments({name: value}, HERE, ()) == {}


def test_the_options_of_megatron_cores_bert_example_are_accepted(tmp_path: Path, truth: Truth) -> None:
    options = {
        "attention_backend": 5,
        "ckpt_format": "torch",
        "spec": ["local"],
        "transformer_impl": "local",
        "use_mcore_models": True,
    }
    assert open_source(write_megatron(tmp_path / "mega", truth, **options), SourceOptions()).has_head


def test_the_message_names_what_the_argument_changes() -> None:
    with pytest.raises(CheckpointError, match=r"use_mup True \(scaled embeddings, logits and attention scores\)"):
        check_arguments({"use_mup": True}, HERE, ())


def test_an_assumption_is_recorded(tmp_path: Path, truth: Truth) -> None:
    folder = write_megatron(tmp_path / "mega", truth, apply_layernorm_1p=True)
    with pytest.raises(CheckpointError, match="apply_layernorm_1p"):
        open_source(folder, SourceOptions())
    options = SourceOptions(assume_neutral=("apply_layernorm_1p",))
    convert(ConversionRequest(folder, tmp_path / "out", options=options), lambda line: None)
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["source"]["assumed_neutral"] == {"apply_layernorm_1p": True}


def test_a_model_without_head_may_be_a_gpt(tmp_path: Path, truth: Truth) -> None:
    folder = write_megatron(tmp_path / "gpt", truth, head=False, tokenizer_type="GPT2BPETokenizer")
    with pytest.raises(CheckpointError, match=r"gpt: has no BERT LM head, .* causal attention.*neutral tokenizer_type"):
        open_source(folder, SourceOptions())
    source = open_source(folder, SourceOptions(assume_neutral=("tokenizer_type",)))
    assert source.provenance()["assumed_neutral"] == {"tokenizer_type": "GPT2BPETokenizer"}
    encoder = write_megatron(tmp_path / "bert", truth, head=False, tokenizer_type="BertWordPieceCase")
    assert not open_source(encoder, SourceOptions()).has_head
    with_head = write_megatron(tmp_path / "head", truth, tokenizer_type="NullTokenizer")
    assert open_source(with_head, SourceOptions()).has_head


@pytest.mark.parametrize("name", ["num_unique_layers", "encoder_num_layers", "kv_channels"])
def test_a_size_that_contradicts_the_tensors_is_refused(tmp_path: Path, truth: Truth, name: str) -> None:
    folder = write_megatron(tmp_path / "mega", truth, **{name: 1})
    with pytest.raises(CheckpointError, match=f"{name} 1, but its tensors have"):
        open_source(folder, SourceOptions())
