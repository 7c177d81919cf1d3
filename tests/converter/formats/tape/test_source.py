"""TAPE directories written by other programs: ProteinLM's original converter, and tape-proteins 0.5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from converter.convert import ConversionRequest, convert, verify_only
from converter.formats.detection import open_source
from converter.options import SourceOptions
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, VocabularyMismatchError
from tape.models.model_directory import load_state_dict
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tests.converter.test_round_trips import assert_same_model, silent, tape_model
from tests.support.megatron_writer import expected_state, make_truth

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 1,
    "vocab_size": 30,
}


def write(folder: Path, state: dict[str, Tensor], **values: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**SIZES, **values}))
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return folder


# --- ProteinLM


def proteinlm(folder: Path, stale: bool) -> Path:
    """Output of ProteinLM's original converter: a stale decoder, a random head, and an unused layer."""
    truth = make_truth()
    state = expected_state(truth)
    state |= {"bert.bert_tail_dense.weight": torch.randn(32, 32), "bert.bert_tail_dense.bias": torch.randn(32)}
    if stale:
        state["mlm.decoder.weight"] = torch.randn(30, 32)
    return write(folder, state, intermediate_size=128)


def test_an_untrained_head_is_dropped(tmp_path: Path) -> None:
    source = proteinlm(tmp_path / "old", stale=True)
    convert(ConversionRequest(source, tmp_path / "out"), silent)
    dropped = json.loads((tmp_path / "out" / "conversion.json").read_text())["dropped"]
    assert "never used" in dropped["bert.bert_tail_dense.weight"]
    assert "never trained" in dropped["mlm.decoder.weight"]  # bugs 5 and 26 in docs/compatibility.md
    state = load_state_dict(tmp_path / "out")
    assert f"bert.{next(iter(state))}" in expected_state(make_truth())
    for name, value in expected_state(make_truth(), head=False).items():
        assert torch.equal(state[name.removeprefix("bert.")], value)


def test_a_trained_head_is_kept(tmp_path: Path) -> None:
    convert(ConversionRequest(proteinlm(tmp_path / "old", stale=False), tmp_path / "out", "megatron"), silent)
    assert open_source(tmp_path / "out", SourceOptions()).has_head


def finetuned(folder: Path, tail: bool = True, **values: object) -> Path:
    """A model that was finetuned with ProteinLM's code, with a task head and the unused layer of all its models."""
    state = expected_state(make_truth(), head=False) | {"classify.classify.main.1.bias": torch.zeros(3)}
    if tail:
        state |= {"bert.bert_tail_dense.weight": torch.randn(32, 32), "bert.bert_tail_dense.bias": torch.randn(32)}
    return write(folder, state, intermediate_size=128, **values)


def test_a_model_finetuned_by_proteinlm_has_no_final_layer_norm(tmp_path: Path) -> None:
    convert(ConversionRequest(finetuned(tmp_path / "theirs"), tmp_path / "out"), silent)
    assert not ProteinBertConfig.from_pretrained(tmp_path / "out").apply_final_ln
    stated = open_source(finetuned(tmp_path / "stated", apply_final_ln=True), SourceOptions())
    assert stated.config.apply_final_ln
    pretrained = open_source(proteinlm(tmp_path / "pretrained", stale=False), SourceOptions())
    assert pretrained.config.apply_final_ln


def test_a_finetuned_model_of_unknown_origin_must_state_the_final_layer_norm(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'unknown/config\.json: add "apply_final_ln"'):
        open_source(finetuned(tmp_path / "unknown", tail=False), SourceOptions())


def test_a_stale_decoder_in_a_directory_of_this_repository_is_refused(tmp_path: Path) -> None:
    state = expected_state(make_truth())
    state["mlm.decoder.weight"] = state["mlm.decoder.weight"] + 1
    source = write(tmp_path / "m", state, intermediate_size=128)
    with pytest.raises(CheckpointError, match=r"mlm\.decoder\.weight.*tied"):
        convert(ConversionRequest(source, tmp_path / "out"), silent)


def test_task_heads_are_dropped(tmp_path: Path) -> None:
    truth = make_truth()
    state = expected_state(truth, head=False) | {"predict.value_prediction.main.0.bias": torch.zeros(8)}
    source = write(tmp_path / "finetuned", state, intermediate_size=128, apply_final_ln=True)
    convert(ConversionRequest(source, tmp_path / "out", "megatron"), silent)
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert report["dropped"] == {"predict.value_prediction.main.0.bias": "head of a finetuning task"}


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    source = tape_model(tmp_path / "tape")
    record = {"name": "other", "fingerprint": "0" * 16, "tokens": {}}
    (source / "vocabulary.json").write_text(json.dumps(record))
    (source / "SHA256SUMS").unlink()
    with pytest.raises(VocabularyMismatchError, match="other"):
        open_source(source, SourceOptions())


def test_a_directory_that_differs_from_its_sums_is_read_only_without_verification(tmp_path: Path) -> None:
    source = tape_model(tmp_path / "tape")
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**values, "hidden_dropout_prob": 0.5}))
    with pytest.raises(CheckpointError, match=r"config\.json: damaged, or changed after it was written"):
        open_source(source, SourceOptions())
    assert open_source(source, SourceOptions(verify=False)).config.hidden_dropout_prob == 0.5


def test_megatron_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--gelu is for Megatron checkpoints"):
        open_source(tape_model(tmp_path / "tape"), SourceOptions(gelu="gelu"))


def test_a_configuration_of_another_model_is_refused(tmp_path: Path) -> None:
    source = tape_model(tmp_path / "tape")
    (source / "config.json").write_text('{"num_labels": 2}')
    (source / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: has no hidden_size"):
        open_source(source, SourceOptions())


def of_another_program(folder: Path, changes: dict[str, Any]) -> Path:
    """The model directory with other values in ``config.json``, and without metadata that would contradict them."""
    state = load_state_dict(folder)
    values = json.loads((folder / "config.json").read_text()) | changes
    for file in folder.iterdir():
        file.unlink()
    (folder / "config.json").write_text(json.dumps(values))
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 1}, r"layer\.1\..*: unknown key: .* state another number of layers, 1"),
        ({"vocab_size": 32}, "has 32 tokens, but .* 30: save word embeddings, .*rows of these tokens alone"),
    ],
)
def test_a_configuration_with_other_sizes_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    source = of_another_program(tape_model(tmp_path / "tape"), changes)
    with pytest.raises(CheckpointError, match=words):
        open_source(source, SourceOptions()).map()


# --- tape-proteins 0.5


def post_ln_state(pooler: bool = True) -> dict[str, Tensor]:
    """A model with random weights under the names of tape-proteins 0.5."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}

    def draw(*shape: int, mean: float = 0.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2 + mean

    def dense(name: str, rows: int, columns: int) -> None:
        state.update({f"{name}.weight": draw(rows, columns), f"{name}.bias": draw(rows)})

    def norm(name: str) -> None:
        state.update({f"{name}.weight": draw(32, mean=1.0), f"{name}.bias": draw(32)})

    for table, rows in (("word", 30), ("position", 40), ("token_type", 1)):
        state[f"bert.embeddings.{table}_embeddings.weight"] = draw(rows, 32)
    norm("bert.embeddings.LayerNorm")
    for number in range(2):
        layer = f"bert.encoder.layer.{number}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            dense(layer + part, 32, 32)
        dense(layer + "intermediate.dense", 64, 32)
        dense(layer + "output.dense", 32, 64)
        norm(layer + "attention.output.LayerNorm")
        norm(layer + "output.LayerNorm")
    if pooler:
        dense("bert.pooler.dense", 32, 32)
    dense("mlm.transform.dense", 32, 32)
    norm("mlm.transform.LayerNorm")
    state["mlm.bias"] = draw(30)
    state["mlm.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    return state


@pytest.fixture(scope="module")
def tape_05(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tape05") / "model", post_ln_state())


def test_post_layer_norm_is_not_converted_to_pre_layer_norm(tmp_path: Path, tape_05: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--to megatron: .*tape-proteins 0\.5, but Megatron-LM is pre-layer-norm.*--to huggingface"
    ):
        convert(ConversionRequest(tape_05, tmp_path / "out", "megatron"), silent)
    assert not (tmp_path / "out").exists()


def test_post_layer_norm_equals_the_post_layer_norm_of_tape_models(tmp_path: Path, tape_05: Path) -> None:
    certificate = convert(ConversionRequest(tape_05, tmp_path / "tape"), silent)
    assert certificate.parity.differences.keys() >= {"embeddings", "layer 1", "pooled", "logits"}
    assert certificate.parity.worst[1] < 1e-9
    assert certificate.computed_by[1] == "tape.models.modeling_bert"
    model, info = ProteinBertForMaskedLM.from_pretrained(tmp_path / "tape", output_loading_info=True)
    assert not any(info.values())
    assert model.config.layer_norm_position == "post"
    convert(ConversionRequest(tmp_path / "tape", tmp_path / "hf", "huggingface"), silent)
    convert(ConversionRequest(tmp_path / "hf", tmp_path / "back"), silent)
    assert_same_model(tmp_path / "tape", tmp_path / "back")


def test_post_layer_norm_equals_bert_of_transformers(tmp_path: Path, tape_05: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    certificate = convert(ConversionRequest(tape_05, tmp_path / "hf", "huggingface"), silent)
    assert certificate.parity.differences.keys() >= {"embeddings", "layer 1", "pooled", "logits"}
    assert certificate.parity.worst[1] < 1e-9
    assert "plain torch" in certificate.computed_by[0]
    assert "BertForMaskedLM" in certificate.computed_by[1]
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert type(model).__name__ == "BertForMaskedLM"
    assert not info["missing_keys"]
    assert {name.split(".")[1] for name in info["unexpected_keys"]} <= {"pooler"}
    state = post_ln_state()
    assert torch.equal(
        model.bert.encoder.layer[1].output.dense.weight, state["bert.encoder.layer.1.output.dense.weight"]
    )
    assert torch.equal(model.cls.predictions.bias, state["mlm.bias"])
    verify_only(tape_05, tmp_path / "hf", SourceOptions())


def test_old_layer_norm_names_and_a_missing_pooler_are_accepted_for_hugging_face(tmp_path: Path) -> None:
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in post_ln_state(pooler=False).items()
    }
    source = write(tmp_path / "old", old)
    certificate = convert(ConversionRequest(source, tmp_path / "hf", "huggingface"), silent)
    assert "pooled" not in certificate.parity.differences


def test_a_post_layer_norm_model_of_other_shapes_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "m", post_ln_state(), intermediate_size=65)
    with pytest.raises(CheckpointError, match=r"dense_h_4h\.weight: has shape \(64, 32\), but the model's is \(65"):
        convert(ConversionRequest(source, tmp_path / "hf", "huggingface"), silent)


def test_verifying_pre_against_post_layer_norm_is_refused(tmp_path: Path, tape_05: Path) -> None:
    other = tape_model(tmp_path / "tape")
    with pytest.raises(CheckpointError, match="num_hidden_layers is 2 in .*, but 4"):
        verify_only(tape_05, other, SourceOptions())


def test_verifying_equal_weights_passes(tmp_path: Path) -> None:
    source = tape_model(tmp_path / "tape")
    convert(ConversionRequest(source, tmp_path / "again" / "pytorch_model.bin"), silent)
    assert_same_model(source, tmp_path / "again")
    assert verify_only(source, tmp_path / "again", SourceOptions()).parity.worst[1] == 0.0
