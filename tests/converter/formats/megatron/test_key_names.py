"""Checkpoints of Megatron Core's BertModel and of Transformer Engine's layers, in both directions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.convert import ConversionRequest, convert
from converter.formats.detection import open_source
from converter.formats.megatron import key_names
from converter.options import SourceOptions
from converter.verify.certificate import ParityError
from tape.errors import CheckpointError, ConfigError
from tests.support.megatron_writer import Truth, edit, expected_state, make_truth, only_rank, write_megatron

# of megatron-core's own model, which loads what the converter writes with load_state_dict(strict=True)
RECORDED = json.loads((Path(__file__).parent / "data" / "megatron_core_bert.json").read_text())


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth()


@pytest.fixture
def core(tmp_path: Path, truth: Truth) -> Path:
    """A single rank of Megatron Core with its local layers."""
    mega = write_megatron(tmp_path / "mega", truth, bias_gelu_fusion=True)
    convert(ConversionRequest(mega, tmp_path / "core", "megatron-core"), silent)
    return tmp_path / "core"


def rename(file: Path, change: Callable[[str], str]) -> None:
    def apply(content: dict[str, Any]) -> None:
        content["model"] = {change(key): value for key, value in content["model"].items()}

    edit(file, apply)


def assert_same_model(folder: Path, truth: Truth) -> None:
    state = open_source(folder, SourceOptions()).map().state
    for name, value in expected_state(truth).items():
        torch.testing.assert_close(state[name].load(), value, rtol=0, atol=0)


def test_the_written_keys_and_shapes_are_those_of_megatron_cores_model(core: Path) -> None:
    model = torch.load(only_rank(core), weights_only=False)["model"]
    found = {key: None if value is None else list(value.shape) for key, value in model.items()}
    assert found == RECORDED["shapes"]


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (2, 2)])
def test_core_checkpoints_are_read_and_written_at_all_layouts(
    tmp_path: Path, truth: Truth, tensor: int, pipeline: int
) -> None:
    mega = write_megatron(tmp_path / "mega", truth, bias_gelu_fusion=True)
    request = ConversionRequest(
        mega, tmp_path / "core", "megatron-core", tensor_parallel=tensor, pipeline_parallel=pipeline
    )
    certificate = convert(request, silent)
    assert "loss over all rows" in certificate.parity.differences
    assert open_source(tmp_path / "core", SourceOptions()).kind == "megatron-core"
    assert_same_model(tmp_path / "core", truth)
    back = convert(ConversionRequest(tmp_path / "core", tmp_path / "back", "megatron"), silent)
    assert max(certificate.parity.worst[1], back.parity.worst[1]) < 1e-12
    assert_same_model(tmp_path / "back", truth)


def test_layer_norms_in_transformer_engines_linear_layers_are_read(core: Path, truth: Truth, tmp_path: Path) -> None:
    rename(
        only_rank(core),
        lambda key: key.replace(".input_layernorm.", ".self_attention.linear_qkv.layer_norm_").replace(
            ".pre_mlp_layernorm.", ".mlp.linear_fc1.layer_norm_"
        ),
    )
    (core / "conversion.json").unlink()
    assert_same_model(core, truth)
    convert(ConversionRequest(core, tmp_path / "out"), silent)


@pytest.mark.parametrize(
    "state",
    [
        None,
        b"fp8",
        io.BytesIO(b"fp8"),
        torch.zeros(3, dtype=torch.uint8),
        {"scale": 1, "history": {"amax": torch.ones(2)}},
    ],
)
def test_extra_states_are_ignored_and_counted(core: Path, truth: Truth, state: object) -> None:
    def change(content: dict[str, Any]) -> None:
        content["model"]["encoder.layers.0.self_attention.core_attention._extra_state"] = state

    edit(only_rank(core), change)
    (core / "conversion.json").unlink()
    assert_same_model(core, truth)
    assert open_source(core, SourceOptions()).provenance()["extra_states_not_read"] == 10  # 9 of them None


def test_fused_layers_of_transformer_engine_in_classic_models_are_read(tmp_path: Path, truth: Truth) -> None:
    folder = write_megatron(tmp_path / "mega", truth, transformer_impl="transformer_engine", bias_gelu_fusion=False)

    def change(content: dict[str, Any]) -> None:
        language_model = content["model"]["language_model"]
        language_model["encoder"] = {fused(key): value for key, value in language_model.pop("transformer").items()}

    edit(only_rank(folder), change)
    assert_same_model(folder, truth)
    config = open_source(folder, SourceOptions()).config
    assert (config.hidden_act, config.mlm_hidden_act) == ("gelu_tanh", "gelu")  # whatever bias_gelu_fusion is
    convert(ConversionRequest(folder, tmp_path / "out"), silent)
    with pytest.raises(ConfigError, match="--gelu erf contradicts"):
        open_source(folder, SourceOptions(gelu="gelu"))


def fused(key: str) -> str:
    for old, new in (
        (".input_layernorm.", ".self_attention.layernorm_qkv.layer_norm_"),
        (".attention.query_key_value.", ".self_attention.layernorm_qkv."),
        (".attention.dense.", ".self_attention.proj."),
        (".post_attention_layernorm.", ".layernorm_mlp.layer_norm_"),
        (".mlp.dense_h_to_4h.", ".layernorm_mlp.fc1_"),
        (".mlp.dense_4h_to_h.", ".layernorm_mlp.fc2_"),
    ):
        key = key.replace(old, new)
    return key


def test_megatron_core_ignores_openai_gelu(core: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["args"].openai_gelu, content["args"].bias_gelu_fusion = True, False

    edit(only_rank(core), change)
    (core / "conversion.json").unlink()
    config = open_source(core, SourceOptions()).config
    assert (config.hidden_act, config.mlm_hidden_act or config.hidden_act) == ("gelu", "gelu")


def test_a_head_that_megatron_core_does_not_have_is_refused(tmp_path: Path, truth: Truth) -> None:
    mega = write_megatron(tmp_path / "mega", truth, openai_gelu=True)
    with pytest.raises(ConfigError, match="--to megatron-core: .* can't combine gelu_tanh blocks with a gelu_tanh LM"):
        convert(ConversionRequest(mega, tmp_path / "core", "megatron-core"), silent)


def test_messages_have_the_names_of_the_file(core: Path, tmp_path: Path) -> None:
    (core / "conversion.json").unlink()
    key = "encoder.layers.1.self_attention.q_layernorm.weight"
    edit(only_rank(core), lambda content: content["model"].update({key: torch.ones(8)}))
    with pytest.raises(CheckpointError, match=rf"core: {key}: unknown key: .*if it does not need this tensor, remove"):
        open_source(core, SourceOptions()).map()

    def untie(content: dict[str, Any]) -> None:
        del content["model"][key]
        content["model"]["output_layer.weight"] = content["model"]["embedding.word_embeddings.weight"] + 1

    edit(only_rank(core), untie)
    with pytest.raises(CheckpointError, match=r"output_layer\.weight: rank 0 differs from embedding\.word_embeddings"):
        convert(ConversionRequest(core, tmp_path / "out"), silent)
    convert(ConversionRequest(core, tmp_path / "out", lm_head="drop"), silent)
    dropped = json.loads((tmp_path / "out" / "conversion.json").read_text())["dropped"]
    assert dropped["word_embeddings_for_head.weight"] == dropped["mlm.bias"] == "requested by --lm-head drop"


def test_the_certificate_notices_an_error_in_the_names(
    tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    mega = write_megatron(tmp_path / "mega", truth, bias_gelu_fusion=True)
    swapped = {".pre_mlp_layernorm.": ".input_layernorm.", ".input_layernorm.": ".pre_mlp_layernorm."}
    right = key_names.core_name

    def wrong(key: str) -> str:
        name = right(key)
        return next((name.replace(old, new) for old, new in swapped.items() if old in name), name)

    monkeypatch.setattr("converter.formats.megatron.writer.core_name", wrong)
    with pytest.raises(ParityError, match="do not compute the same") as raised:
        convert(ConversionRequest(mega, tmp_path / "core", "megatron-core"), silent)
    assert str(raised.value).startswith(f"{mega}: ")  # the result's temporary directory is gone


@pytest.mark.parametrize("arguments", [True, False])
def test_megatron_core_has_one_order_of_query_key_and_value_rows(core: Path, truth: Truth, arguments: bool) -> None:
    """A missing version doesn't mean version 0, whose order it never had (bug 24 in docs/compatibility.md)."""

    def change(content: dict[str, Any]) -> None:
        del content["checkpoint_version"]
        if not arguments:
            del content["args"]

    edit(only_rank(core), change)
    (core / "conversion.json").unlink()
    source = open_source(core, SourceOptions(heads=None if arguments else truth.heads))
    for name, value in expected_state(truth).items():
        assert torch.equal(source.map().state[name].load(), value), name
    assert source.provenance()["settings_from"]["checkpoint_version"] == "names of the tensors"
    edit(only_rank(core), lambda content: content.update(checkpoint_version=1.0))
    with pytest.raises(CheckpointError, match=r"checkpoint_version 1\.0 is unknown .*known are 2, 3"):
        open_source(core, SourceOptions(heads=None if arguments else truth.heads))


@pytest.mark.parametrize(
    "wrap", [lambda model: {"module": model}, lambda model: {"module." + k: model[k] for k in model}]
)
def test_the_prefix_of_a_wrapper_is_named(core: Path, wrap: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    edit(only_rank(core), lambda content: content.update(model=wrap(content["model"])))
    (core / "conversion.json").unlink()
    with pytest.raises(CheckpointError, match=r"model_optim_rng\.pt: all keys have the prefix 'module\.'"):
        open_source(core, SourceOptions())


def test_a_gpt_of_megatron_core_is_no_bert(core: Path) -> None:
    rename(only_rank(core), lambda key: key.replace("encoder.", "decoder."))
    (core / "conversion.json").unlink()
    with pytest.raises(CheckpointError, match="contains no Megatron language model"):
        open_source(core, SourceOptions())
