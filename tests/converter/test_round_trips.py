"""Round trips TAPE -> Megatron-LM -> TAPE and TAPE -> Hugging Face -> TAPE are bit-exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.convert import ConversionRequest, convert
from converter.formats.megatron.writer import MegatronTarget
from converter.safe_load import load_checkpoint_file
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.model_directory import load_state_dict, save_model_directory
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tests.support.megatron_writer import LETTERS, SPECIAL, expected_state, make_truth


def silent(line: str) -> None:
    """Discard progress lines."""


def tape_model(folder: Path, types: int = 1, head: bool = True, **changes: Any) -> Path:
    """A TAPE directory in which all weights are different and token-type embeddings are not zero."""
    truth = make_truth(layers=4)
    state = expected_state(truth, head)
    state["bert.embeddings.token_type_embeddings.weight"] = torch.randn(types, truth.hidden)
    values = {
        "hidden_size": truth.hidden,
        "num_hidden_layers": truth.layers,
        "num_attention_heads": truth.heads,
        "intermediate_size": truth.wide,
        "max_position_embeddings": truth.positions,
        "type_vocab_size": types,
        "hidden_dropout_prob": 0.05,
        "attention_probs_dropout_prob": 0.15,
        "layer_norm_eps": 1e-6,
    }
    prefix = "" if head else "bert."
    named = {name.removeprefix(prefix): value for name, value in state.items()}
    save_model_directory(folder, named, ProteinBertConfig(**{**values, **changes}))
    return folder


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tape_model(tmp_path_factory.mktemp("round") / "tape")


def assert_same_model(one: Path, other: Path) -> None:
    left, right = load_state_dict(one), load_state_dict(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype
        assert torch.equal(value, right[name]), name
    assert ProteinBertConfig.from_pretrained(one) == ProteinBertConfig.from_pretrained(other)


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (4, 2), (1, 4)])
def test_conversion_to_megatron_and_back_is_exact(tmp_path: Path, tape: Path, tensor: int, pipeline: int) -> None:
    sizes = {"tensor_parallel": tensor, "pipeline_parallel": pipeline}
    convert(ConversionRequest(tape, tmp_path / "mega", "megatron", **sizes), silent)
    certificate = convert(ConversionRequest(tmp_path / "mega", tmp_path / "back"), silent)
    assert certificate.parity.worst[1] < 1e-9
    assert_same_model(tape, tmp_path / "back")
    assert len(list((tmp_path / "mega" / "release").iterdir())) == tensor * pipeline


def test_files_written_for_megatron_have_its_keys_and_shapes(tmp_path: Path, tape: Path) -> None:
    """The written files have the keys and shapes of Megatron-LM's checkpoints."""
    convert(ConversionRequest(tape, tmp_path / "mega", "megatron", tensor_parallel=2, pipeline_parallel=2), silent)
    assert (tmp_path / "mega" / "latest_checkpointed_iteration.txt").read_text() == "release"
    first, last = (
        load_checkpoint_file(tmp_path / "mega" / "release" / f"mp_rank_01_{stage}" / "model_optim_rng.pt")
        for stage in ("000", "001")
    )
    assert first["checkpoint_version"] == 3.0
    arguments = first["args"]
    assert (arguments.tensor_model_parallel_size, arguments.pipeline_model_parallel_size) == (2, 2)
    assert (arguments.padded_vocab_size, arguments.layernorm_epsilon, arguments.num_layers) == (256, 1e-6, 4)
    assert not arguments.bias_gelu_fusion
    language = first["model"]["language_model"]
    assert language["embedding"].keys() == {"word_embeddings", "position_embeddings", "tokentype_embeddings"}
    assert language["embedding"]["word_embeddings"]["weight"].shape == (128, 32)
    layer = language["transformer"]
    assert layer["layers.0.attention.query_key_value.weight"].shape == (48, 32)
    assert layer["layers.1.mlp.dense_4h_to_h.weight"].shape == (32, 64)
    assert "final_layernorm.weight" not in layer
    assert "lm_head" not in first["model"]
    assert last["model"]["language_model"].keys() == {"transformer"}
    assert {"layers.0.mlp.dense_h_to_4h.bias", "final_layernorm.bias"} <= last["model"]["language_model"][
        "transformer"
    ].keys()
    assert last["model"]["lm_head"].keys() == {
        "bias",
        "dense.weight",
        "dense.bias",
        "layernorm.weight",
        "layernorm.bias",
    }
    assert torch.equal(
        last["model"]["word_embeddings_for_head"]["weight"], language["embedding"]["word_embeddings"]["weight"]
    )


@pytest.mark.parametrize("pipeline", [1, 2])
def test_megatron_core_gets_two_token_types_of_one(tmp_path: Path, tape: Path, pipeline: int) -> None:
    lines: list[str] = []
    convert(ConversionRequest(tape, tmp_path / "core", "megatron-core", pipeline_parallel=pipeline), lines.append)
    assert any("row 1 is a copy of row 0" in line for line in lines)
    first = min((tmp_path / "core" / "release").rglob("*.pt"))
    content = load_checkpoint_file(first)
    rows = content["model"]["embedding.tokentype_embeddings.weight"]
    (own,) = load_state_dict(tape)["bert.embeddings.token_type_embeddings.weight"]
    assert torch.equal(rows, torch.stack([own, own]))
    assert content["args"].num_tokentypes == 2
    record = json.loads((tmp_path / "core" / "conversion.json").read_text())
    assert record["result"]["config"]["type_vocab_size"] == 2
    assert "two token types" in record["filled"]["bert.embeddings.token_type_embeddings.weight"]

    convert(ConversionRequest(tmp_path / "core", tmp_path / "back"), silent)
    ids = torch.tensor([[2, *range(5, 20), 3]])
    with torch.no_grad():
        (expected, *_), (logits, *_) = (
            ProteinBertForMaskedLM.from_pretrained(folder).eval()(ids) for folder in (tape, tmp_path / "back")
        )
    assert torch.equal(logits, expected)


@pytest.mark.parametrize(("form", "types"), [("megatron", 1), ("megatron-core", 2)])
def test_other_token_types_stay_as_they_are(tmp_path: Path, form: str, types: int) -> None:
    source = tape_model(tmp_path / "tape", types=types)
    convert(ConversionRequest(source, tmp_path / "out", form), silent)
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["filled"] == {}
    convert(ConversionRequest(tmp_path / "out", tmp_path / "back"), silent)
    assert_same_model(source, tmp_path / "back")


@pytest.mark.parametrize("form", ["megatron", "megatron-core"])
def test_keys_are_in_the_order_of_the_modules(tmp_path: Path, tape: Path, form: str) -> None:
    """transformers' conversion of Megatron-LM's BERT expects a bias of queries, keys and values after its weight."""
    convert(ConversionRequest(tape, tmp_path / "m.pt", form), silent)
    model = load_checkpoint_file(tmp_path / "m.pt")["model"]
    layers = model["language_model"]["transformer"] if form == "megatron" else model
    keys = [key.removeprefix("encoder.") for key in layers if "layer" in key]
    numbers = [int(key.split(".")[1]) for key in keys if key.startswith("layers.")]
    assert numbers == sorted(numbers)
    fused = [place for place, key in enumerate(keys) if key.endswith(("query_key_value.weight", "linear_qkv.weight"))]
    assert len(fused) == 4
    assert [keys[place + 1] for place in fused] == [keys[place].replace("weight", "bias") for place in fused]
    assert keys[0].startswith("layers.0.input_layernorm")


def test_embedding_rows_are_in_the_order_of_megatrons_vocabulary(tmp_path: Path, tape: Path) -> None:
    convert(ConversionRequest(tape, tmp_path / "m.pt", "megatron"), silent)
    content = load_checkpoint_file(tmp_path / "m.pt")
    rows = content["model"]["language_model"]["embedding"]["word_embeddings"]["weight"]
    truth = make_truth(layers=4)
    for row, token in enumerate(SPECIAL + LETTERS):
        assert torch.equal(rows[row], truth.words[token]) or token == "[unused1]"
    assert not rows[31:].any()
    bias = content["model"]["lm_head"]["bias"]
    assert torch.equal(bias[[5, *range(31, 128)]], torch.full((98,), -1e4))  # [unused1] and padding
    assert {path.name for path in tmp_path.iterdir()} == {"m.pt", "m.conversion.json"}
    convert(ConversionRequest(tmp_path / "m.pt", tmp_path / "back"), silent)
    assert_same_model(tape, tmp_path / "back")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_conversion_to_hugging_face_and_back_is_exact(tmp_path: Path, tape: Path, dtype: torch.dtype) -> None:
    convert(ConversionRequest(tape, tmp_path / "first", dtype=dtype), silent)
    convert(ConversionRequest(tmp_path / "first", tmp_path / "hf", "huggingface", dtype=dtype), silent)
    convert(ConversionRequest(tmp_path / "hf", tmp_path / "back", dtype=dtype), silent)
    assert_same_model(tmp_path / "first", tmp_path / "back")
    report = json.loads((tmp_path / "back" / "conversion.json").read_text())
    assert report["source"]["kind"] == "huggingface-megatron-bert"
    assert "transformers" in report["certificate"]["source_computed_by"]


@pytest.mark.parametrize("form", ["megatron", "huggingface"])
def test_an_encoder_without_lm_head_survives_a_round_trip(tmp_path: Path, form: str) -> None:
    source = tape_model(tmp_path / "encoder", head=False)
    convert(ConversionRequest(source, tmp_path / "there", form), silent)
    convert(ConversionRequest(tmp_path / "there", tmp_path / "back"), silent)
    assert_same_model(source, tmp_path / "back")


def test_two_token_types_and_fused_gelu_survive_a_round_trip(tmp_path: Path) -> None:
    source = tape_model(tmp_path / "tape", types=2, hidden_act="gelu_tanh", mlm_hidden_act="gelu")
    convert(ConversionRequest(source, tmp_path / "mega", "megatron", tensor_parallel=2), silent)
    convert(ConversionRequest(tmp_path / "mega", tmp_path / "back"), silent)
    assert_same_model(source, tmp_path / "back")


def test_converting_tape_to_tape_never_replaces_the_source(tmp_path: Path, tape: Path) -> None:
    convert(ConversionRequest(tape, tmp_path / "again" / "pytorch_model.bin"), silent)
    assert_same_model(tape, tmp_path / "again")
    with pytest.raises(ConfigError, match="would replace the source"):
        convert(ConversionRequest(tape, tape / "pytorch_model.bin", overwrite=True), silent)


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        (MegatronTarget(tensor=5), {}, "--tensor-model-parallel-size 5 does not divide num_attention_heads 12"),
        (MegatronTarget(pipeline=5), {}, "--pipeline-model-parallel-size 5 does not divide num_hidden_layers 12"),
        (MegatronTarget(tensor=0), {}, "must be at least 1"),
        (MegatronTarget(), {"apply_final_ln": False}, "always applies the final layer norm"),
        (MegatronTarget(), {"pruned_heads": {0: [1]}}, "does not support pruned heads"),
        (MegatronTarget(), {"hidden_act": "relu"}, "can't combine relu blocks"),
        (MegatronTarget(tensor=2, file="m.pt"), {}, "a single file contains one rank"),
    ],
)
def test_models_that_megatron_cannot_represent_are_refused(
    target: MegatronTarget, changes: dict[str, Any], words: str
) -> None:
    config = ProteinBertConfig(**changes)
    with pytest.raises(ConfigError, match=words):
        target.check(config, True)
