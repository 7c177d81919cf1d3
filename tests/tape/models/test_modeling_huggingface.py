"""Encoders of ``transformers`` compute here what they compute there, for the ids of their own tokenizers."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from converter.convert import ConversionRequest, convert
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, VocabularyMismatchError
from tape.evaluation.config import ModelSource
from tape.evaluation.load_model import load_encoder
from tape.models.lora import add_lora, plain_state
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.models.modeling_huggingface import (
    ProteinHuggingFaceForMaskedLM,
    ProteinHuggingFaceForSequenceToSequenceClassification,
    ProteinHuggingFaceForValuePrediction,
    ProteinHuggingFaceModel,
)
from tape.registry import registry
from tape.tokenizers import IUPAC_VOCAB, TAPETokenizer
from tests.converter.test_round_trips import silent
from tests.support.huggingface_models import (
    ESM_TOKENS,
    KINDS,
    PROTBERT_TOKENS,
    logits_of_transformers,
    save_model,
    small_config,
    write_tokenizer,
)
from tests.support.small_models import SMALL_CONFIGS

transformers = pytest.importorskip("transformers")

PROTEINS = ("MKVLAXUZOB", "ACDEFGHIKLMNPQRSTVWY", "W")


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()


@pytest.fixture
def esm(tmp_path: Path) -> Path:
    save_model(tmp_path / "esm", "esm")
    return tmp_path / "esm"


def encoded(*proteins: str) -> tuple[Tensor, Tensor]:
    """Padded TAPE ids and their mask."""
    rows = [torch.from_numpy(TAPETokenizer().encode(protein)) for protein in proteins]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return ids, (ids != 0).long()


@torch.no_grad()
def logits(model: Any, protein: str) -> Tensor:
    return model(encoded(protein)[0])[0][0]


def changed_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("kind", KINDS)
def test_states_and_logits_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = save_model(tmp_path, kind)
    model, info = ProteinHuggingFaceForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    encoder = ProteinHuggingFaceModel.from_pretrained(tmp_path, output_hidden_states=True)
    assert info["missing_keys"] == []
    ids, mask = encoded(*PROTEINS)
    with torch.no_grad():
        padded, (states, pooled, all_states) = model(ids, mask)[0], encoder(ids, mask)
    for row, protein in enumerate(PROTEINS):
        tokenizer, expected = logits_of_transformers(tmp_path, theirs, protein)
        real = len(protein) + 2
        for residue in "ACDEFGHIKLMNPQRSTVWYXUZOB":
            column = expected.logits[0, :, tokenizer.get_vocab()[residue]]
            torch.testing.assert_close(padded[row, :real, IUPAC_VOCAB[residue]], column, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(states[row, :real], expected.hidden_states[-1][0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(all_states[1][row, :real], expected.hidden_states[1][0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(pooled[row], states[row, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_masked_residues_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """ESM scales its embeddings by the share of masked tokens, for which it needs the id of its mask token."""
    theirs = save_model(tmp_path, kind)
    model = ProteinHuggingFaceForMaskedLM.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids, inputs = encoded("MKVLA")[0], tokenizer("M K V L A", return_tensors="pt")
    ids[0, 3], inputs["input_ids"][0, 3] = IUPAC_VOCAB["<mask>"], tokenizer.mask_token_id
    with torch.no_grad():
        column = theirs(**inputs).logits[0, :, tokenizer.get_vocab()["K"]]
        torch.testing.assert_close(model(ids)[0][0, :, IUPAC_VOCAB["K"]], column)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_maps_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = save_model(tmp_path, kind)
    encoder = ProteinHuggingFaceModel.from_pretrained(tmp_path, output_attentions=True)
    theirs.set_attn_implementation("eager")
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path)("M K V L A", return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs, output_attentions=True).attentions
        maps = encoder(encoded("MKVLA")[0])[-1]
    assert len(maps) == len(expected) == 2
    for ours, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("position", ["pre", "post"])
def test_our_export_computes_what_the_exported_model_does(position: str, tmp_path: Path) -> None:
    config = ProteinBertConfig(**SMALL_CONFIGS["transformer"], layer_norm_position=position)
    source = tmp_path / "tape"
    ProteinBertForMaskedLM(config).save_pretrained(source)
    convert(ConversionRequest(source, tmp_path / "hf", "huggingface"), silent)
    exported = ProteinHuggingFaceForMaskedLM.from_pretrained(tmp_path / "hf")
    expected = logits(ProteinBertForMaskedLM.from_pretrained(source), PROTEINS[0])
    torch.testing.assert_close(logits(exported, PROTEINS[0]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_models_load_without_the_original_directory(kind: str, tmp_path: Path) -> None:
    save_model(tmp_path / "hf", kind)
    model = ProteinHuggingFaceForMaskedLM.from_pretrained(tmp_path / "hf")
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "hf")
    again, info = ProteinHuggingFaceForMaskedLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert torch.equal(logits(again, PROTEINS[0]), logits(model, PROTEINS[0]))


@pytest.mark.parametrize("form", ["pytorch_model.bin", "shards"])
def test_every_form_of_weights_is_read(form: str, esm: Path, tmp_path: Path) -> None:
    options = {"max_shard_size": "10KB"} if form == "shards" else {}
    model = save_model(tmp_path / "other", "esm", **options)
    if form == "pytorch_model.bin":  # as transformers 4 could save it
        torch.save(model.state_dict(), tmp_path / "other" / form)
        (tmp_path / "other/model.safetensors").unlink()
    assert not (tmp_path / "other/model.safetensors").exists()
    one, other = (ProteinHuggingFaceForMaskedLM.from_pretrained(folder) for folder in (esm, tmp_path / "other"))
    assert torch.equal(logits(one, "MKV"), logits(other, "MKV"))


def test_an_index_can_name_only_files_of_its_directory(esm: Path, tmp_path: Path) -> None:
    (esm / "model.safetensors").rename(tmp_path / "model.safetensors")
    (esm / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"index.json: names '../model.safetensors'"):
        ProteinHuggingFaceModel.from_pretrained(esm)


def test_half_precision_weights_are_loaded_as_fp32(esm: Path, tmp_path: Path) -> None:
    transformers.AutoModelForMaskedLM.from_pretrained(esm, dtype=torch.float16).save_pretrained(tmp_path / "half")
    write_tokenizer(tmp_path / "half", "esm")
    model = ProteinHuggingFaceModel.from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_an_encoder_without_head_is_read_and_its_missing_head_reported(esm: Path, tmp_path: Path) -> None:
    transformers.AutoModel.from_pretrained(esm).save_pretrained(tmp_path / "bare")
    write_tokenizer(tmp_path / "bare", "esm")
    encoder = ProteinHuggingFaceModel.from_pretrained(tmp_path / "bare")
    torch.testing.assert_close(logits(encoder, "MKV"), logits(ProteinHuggingFaceModel.from_pretrained(esm), "MKV"))
    _, info = ProteinHuggingFaceForMaskedLM.from_pretrained(tmp_path / "bare", output_loading_info=True)
    assert "lm_head.dense.weight" in info["missing_keys"]


def test_a_missing_weight_of_the_encoder_is_an_error(esm: Path) -> None:
    changed_json(esm / "config.json", num_hidden_layers=3)
    with pytest.raises(CheckpointError, match="weights of the encoder are missing: encoder.encoder.layer.2"):
        ProteinHuggingFaceModel.from_pretrained(esm)


def test_code_in_the_directory_is_not_executed(esm: Path, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'executed')!r}, 'w')\n"
    for name in ("modeling_own", "tokenization_own", "configuration_own"):
        (esm / f"{name}.py").write_text(code)
    changed_json(
        esm / "config.json", auto_map={"AutoConfig": "configuration_own.C", "AutoModelForMaskedLM": "modeling_own.M"}
    )
    changed_json(esm / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_own.T", None]})
    ProteinHuggingFaceForMaskedLM.from_pretrained(esm)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_loading_needs_no_network(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path, kind)
    tried: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: tried.append(address))
    ProteinHuggingFaceForMaskedLM.from_pretrained(tmp_path)
    assert not tried


def test_residues_without_a_token_are_read_as_x_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = [token for token in PROTBERT_TOKENS if token not in "UZOB"]
    save_model(tmp_path, "bert", few)
    encoder = ProteinHuggingFaceModel.from_pretrained(tmp_path)
    assert "has no token for B, O, U, Z, which it reads as X" in caplog.text
    assert torch.equal(logits(encoder, "MUKB"), logits(encoder, "MXKX"))


@pytest.mark.parametrize(
    ("tokens", "settings", "message"),
    [
        ([token for token in PROTBERT_TOKENS if token != "W"], {}, "no token for W"),
        (PROTBERT_TOKENS, {"do_lower_case": True}, "encodes 'MABCDEFG'... as '\\[CLS\\].*not as one token per residue"),
        (PROTBERT_TOKENS, {"pad_token": None}, "no token for <pad>"),
    ],
)
def test_other_tokenizers_are_refused(tokens: list[str], settings: Any, message: str, tmp_path: Path) -> None:
    save_model(tmp_path, "bert", tokens)
    changed_json(tmp_path / "tokenizer_config.json", **settings)
    with pytest.raises(CheckpointError, match=message):
        ProteinHuggingFaceModel.from_pretrained(tmp_path)


def test_tokens_of_several_residues_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "esm", ["MA" if token == "<null_1>" else token for token in ESM_TOKENS])
    with pytest.raises(CheckpointError, match="tokens of several residues, such as 'MA'"):
        ProteinHuggingFaceModel.from_pretrained(tmp_path)


def test_a_directory_without_tokenizer_is_refused(tmp_path: Path) -> None:
    transformers.AutoModelForMaskedLM.from_config(small_config("bert")).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="can't load a tokenizer from it"):
        ProteinHuggingFaceModel.from_pretrained(tmp_path)


def test_ids_beyond_the_embeddings_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "esm", [*ESM_TOKENS[:-1], "<null_2>", "<null_3>", "<mask>"])
    with pytest.raises(ConfigError, match="token id 34, but the model has only 33 embeddings"):
        ProteinHuggingFaceModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "'t5' is not an encoder"),
        ({"model_type": "bart"}, "bart is a decoder or has one"),
        ({"is_decoder": True}, "esm is a decoder or has one"),
        ({"model_type": "of my own"}, "'of my own' is not an encoder"),
        (
            {"num_attention_heads": "many"},
            "config.json: transformers (can't build an encoder|refuses its values for) esm",
        ),
    ],
)
def test_other_architectures_are_refused(changes: dict[str, Any], message: str, esm: Path) -> None:
    changed_json(esm / "config.json", **changes)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        ProteinHuggingFaceModel.from_pretrained(esm)


@pytest.mark.parametrize("kind", ["albert", "distilbert", "mpnet", "roberta"])
def test_other_encoders_compute_what_they_do_in_transformers(kind: str, tmp_path: Path) -> None:
    """Encoders whose configurations have other attributes than BERT's, such as no ``is_decoder`` in transformers 5."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    config = transformers.AutoConfig.for_model(
        kind, **sizes, vocab_size=len(PROTBERT_TOKENS), max_position_embeddings=40, pad_token_id=0
    )
    theirs = transformers.AutoModel.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    write_tokenizer(tmp_path, "bert")
    ours = ProteinHuggingFaceModel.from_pretrained(tmp_path)
    for protein in PROTEINS:
        ids, _ = encoded(protein)
        with torch.no_grad():
            expected = theirs(input_ids=ours.token_ids[ids]).last_hidden_state
            torch.testing.assert_close(ours(ids)[0], expected)


@pytest.mark.parametrize(("kind", "limit"), [("esm", None), ("esm-1b", 38), ("bert", 40), ("megatron-bert", 40)])
def test_the_position_limit_is_that_of_the_table(kind: str, limit: int | None, tmp_path: Path) -> None:
    save_model(tmp_path, kind)
    encoder = ProteinHuggingFaceModel.from_pretrained(tmp_path)
    assert getattr(encoder.config, "max_position_embeddings", None) == limit
    if limit is not None:
        encoder(encoded("A" * (limit - 2))[0])
        with pytest.raises(ConfigError, match=f"{limit + 1} tokens exceed the {limit} positions"):
            encoder(encoded("A" * (limit - 1))[0])


def test_lora_adapts_every_layer_and_its_merged_weights_load(esm: Path, tmp_path: Path) -> None:
    model = ProteinHuggingFaceForValuePrediction.from_pretrained(esm)
    add_lora(model, 4)
    model.train()(*encoded(*PROTEINS), torch.zeros(3, 1))[0][0].backward()
    adapted = [name for name, value in model.named_parameters() if "lora_B" in name and value.grad is not None]
    assert len(adapted) == 2 * 6  # query, key, value, two denses of attention and MLP's output, per layer
    fresh = ProteinHuggingFaceForValuePrediction(model.config)
    assert plain_state(model).keys() == fresh.state_dict().keys()


def test_heads_are_tapes(esm: Path) -> None:
    model = ProteinHuggingFaceForSequenceToSequenceClassification.from_pretrained(esm, num_labels=3)
    assert model(*encoded(*PROTEINS))[0].shape == (3, 22, 3)
    assert model.config.num_labels == 3


def test_the_vocabulary_of_the_data_must_be_iupac(esm: Path) -> None:
    with pytest.raises(VocabularyMismatchError, match="give --tokenizer iupac"):
        load_encoder(ModelSource("huggingface", str(esm), "unirep"), esm)


def test_without_a_directory_the_error_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match="give --from_pretrained a directory"):
        registry.get_task_model("huggingface", "stability")


def test_without_transformers_the_error_names_the_extra(esm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'proteinlm\[hf\]'"):
        registry.get_task_model("huggingface", "stability", load_dir=esm)


@pytest.mark.parametrize("kind", KINDS)
def test_other_model_types_refuse_directories_of_transformers(kind: str, tmp_path: Path) -> None:
    """All weights of a ``BertModel`` have the names of a model of tape-proteins 0.5; its tokens have other ids."""
    save_model(tmp_path, kind)
    transformers.AutoModel.from_config(small_config(kind)).save_pretrained(tmp_path)
    model_type = small_config(kind).model_type
    message = rf"config\.json: a model of transformers \('{model_type}'\), .* use the model type huggingface"
    for other in ("transformer", "resnet"):
        with pytest.raises(CheckpointError, match=message):
            registry.get_task_model(other, "stability", load_dir=tmp_path)
    assert registry.get_task_model("huggingface", "stability", load_dir=tmp_path) is not None


def test_a_name_of_the_hub_is_answered_with_its_download() -> None:
    with pytest.raises(CheckpointError, match="hf download facebook/esm2 --local-dir DIRECTORY"):
        registry.get_task_model("huggingface", "stability", load_dir="facebook/esm2")


def test_tokens_cannot_be_resized(esm: Path) -> None:
    with pytest.raises(ConfigError, match="can't be resized"):
        ProteinHuggingFaceModel.from_pretrained(esm).resize_token_embeddings(40)
