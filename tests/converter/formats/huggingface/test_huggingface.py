"""Hugging Face directories: transformers loads them without code of this repository and computes the same logits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import converter.formats.huggingface.source
from converter.convert import ConversionRequest, convert, verify_only
from converter.formats.detection import open_source
from converter.formats.huggingface.source import HuggingFaceSource
from converter.options import SourceOptions
from converter.verify.reference_forward import LOGITS
from tape.errors import CheckpointError, ConfigError
from tape.io.checksums import sha256_of, write_sums
from tape.models.model_directory import load_state_dict
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.tokenizers import TAPETokenizer, normalize_sequence
from tests.converter.test_round_trips import silent, tape_model

transformers = pytest.importorskip("transformers")
PROTEINS = ["MQIFVKTLTGKTITLEVEPSD", "ABCDEFGHIKLMNOPQRSTUVWXYZ", "m k t\nayJ"]

WITHOUT_SUMS = shutil.ignore_patterns("SHA256SUMS", "conversion.json")  # of copies that a test changes
NAMES_OF_BIAS = ("cls.predictions.bias", "cls.predictions.decoder.bias")


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tape_model(tmp_path_factory.mktemp("hf_source") / "tape", hidden_act="gelu_tanh")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tape: Path) -> Path:
    out = tmp_path_factory.mktemp("hf") / "out"
    convert(ConversionRequest(tape, out, "huggingface"), silent)
    return out


def test_transformers_computes_the_same_logits(tape: Path, written: Path) -> None:
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(written, output_loading_info=True)
    assert not any(info.values()), info
    assert type(model).__name__ == "MegatronBertForMaskedLM"
    tokenizer = transformers.AutoTokenizer.from_pretrained(written)
    ours = ProteinBertForMaskedLM.from_pretrained(tape)
    batch = tokenizer(PROTEINS, return_tensors="pt", padding=True)
    with torch.no_grad():
        found = model(**batch).logits
        expected = ours(batch["input_ids"], batch["attention_mask"])[0]
    real = batch["attention_mask"].bool()
    assert float((found - expected)[real].abs().max()) < 1e-5


def test_the_tokenizer_returns_the_ids_of_tape(written: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(written)
    for protein in PROTEINS:
        clean, _ = normalize_sequence(protein, drop_gaps=False)
        assert tokenizer(protein)["input_ids"] == TAPETokenizer().encode(clean).tolist()
    assert tokenizer("MK<mask>T")["input_ids"] == [2, 16, 14, 1, 23, 3]
    assert tokenizer("M7")["input_ids"] == [2, 16, 4, 3]
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token) == ("<cls>", "<sep>", "<mask>")
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.vocab_size) == (0, 4, 30)
    assert tokenizer.model_max_length == 40
    assert tokenizer.decode([16, 14, 23]) == "MKT"


def test_the_directory_is_complete(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {
        "README.md",
        "SHA256SUMS",
        "config.json",
        "conversion.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = (written / "README.md").read_text()
    assert "AutoModelForMaskedLM" in card
    assert "| 4 | 32 | 4 | 40 |" in card
    report = json.loads((written / "conversion.json").read_text())
    assert report["certificate"]["result_computed_by"].startswith("transformers ")
    assert "transformers" in report["versions"]
    assert report["result"]["files"].keys() >= {"model.safetensors", "tokenizer.json"}


def test_the_card_names_an_untrained_pooler(written: Path) -> None:
    card = (written / "README.md").read_text()
    assert "**`pooler_output` is untrained**: the model has no pooler" in card
    assert 'AutoModel.from_pretrained("THIS DIRECTORY", add_pooling_layer=False)' in card
    encoder, info = transformers.AutoModel.from_pretrained(written, add_pooling_layer=False, output_loading_info=True)
    assert encoder.pooler is None
    assert not info["missing_keys"]


def test_without_transformers_the_result_is_verified_with_plain_torch(
    tmp_path: Path, tape: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(written, SourceOptions())
    assert isinstance(source, HuggingFaceSource)
    (plain,) = source.plain_reference_forward().states([PROTEINS[0]])
    (theirs,) = source.reference_forward(None).states([PROTEINS[0]])
    assert list(plain) == list(theirs)
    for name, state in plain.items():
        assert float((state - theirs[name]).abs().max()) < 1e-9, name
    monkeypatch.setattr(converter.formats.huggingface.source, "transformers_available", lambda: False)
    convert(ConversionRequest(tape, tmp_path / "out", "huggingface"), silent)
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert "plain torch" in report["certificate"]["result_computed_by"]


def test_a_model_saved_by_transformers_is_read(tmp_path: Path, tape: Path, written: Path) -> None:
    """It has no duplicates of tied weights, several files, and the tokens in the order of vocab.txt."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(written)
    model.save_pretrained(tmp_path / "saved", max_shard_size="20KB")
    assert (tmp_path / "saved" / "model.safetensors.index.json").is_file()
    (tmp_path / "saved" / "vocab.txt").write_text("\n".join(TAPETokenizer().tokens))
    convert(ConversionRequest(tmp_path / "saved", tmp_path / "back"), silent)
    before, after = load_state_dict(tape), load_state_dict(tmp_path / "back")
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_sums_of_a_sharded_model_are_verified(tmp_path: Path, written: Path) -> None:
    saved = tmp_path / "saved"
    transformers.AutoModelForMaskedLM.from_pretrained(written).save_pretrained(saved, max_shard_size="20KB")
    (saved / "vocab.txt").write_text("\n".join(TAPETokenizer().tokens))
    write_sums(saved, {file.name: sha256_of(file) for file in saved.iterdir()})
    open_source(saved, SourceOptions())
    shard = sorted(saved.glob("model-*.safetensors"))[-1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=f"{shard.name}: damaged, or changed after it was written"):
        open_source(saved, SourceOptions())


def test_a_token_with_two_ids_is_named(tmp_path: Path, written: Path) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    values = json.loads((copy / "tokenizer.json").read_text())
    values["model"]["vocab"]["<mask>"] = 29
    (copy / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"token '<mask>' has id 29 in model\.vocab, but 1 in added_tokens"):
        open_source(copy, SourceOptions())


@pytest.mark.parametrize("number", [1 << 40, -1])
def test_a_token_with_an_impossible_id_is_named(tmp_path: Path, written: Path, number: int) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    values = json.loads((copy / "tokenizer.json").read_text())
    values["model"]["vocab"]["A"] = number
    (copy / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json: token 'A' has id {number}, which is not from 0 to"):
        open_source(copy, SourceOptions())


def test_two_tokens_with_one_id_are_refused(tmp_path: Path, written: Path) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    values = json.loads((copy / "tokenizer.json").read_text())
    values["model"]["vocab"]["C"] = values["model"]["vocab"]["A"]
    (copy / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: tokens 'A' and 'C' have the same id 5"):
        open_source(copy, SourceOptions())


def test_another_order_of_tokens_is_mapped_by_name(tmp_path: Path, tape: Path, written: Path) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    order = [*range(5), *reversed(range(5, 30))]
    state = load_file(copy / "model.safetensors")
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
        state[name] = state[name][order]
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].clone()
    save_file(state, copy / "model.safetensors")
    (copy / "tokenizer.json").unlink()
    tokens = TAPETokenizer().tokens
    (copy / "vocab.txt").write_text("\n".join(tokens[number] for number in order))
    verify_only(tape, copy, SourceOptions())


@pytest.mark.parametrize("changes", [{"__class__": 1.5}, {"torch_dtype": 10**30}])
def test_a_configuration_that_transformers_refuses_is_named(tmp_path: Path, written: Path, changes: dict) -> None:
    pytest.importorskip("transformers")
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, **changes}))
    source = open_source(copy, SourceOptions())
    with pytest.raises(CheckpointError, match=r"copy/config\.json: transformers can't build a model from it"):
        source.reference_forward(None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": [[]]}, r"hidden_act \[\[\]\] is not one of"),
        ({"model_type": ["bert"]}, r"has model_type \['bert'\]; supported are"),
        (
            {"model_type": "esm"},
            r"has model_type .esm.*need no conversion: proteinlm train huggingface TASK --from_pretrained \S+copy",
        ),
        ({"position_embedding_type": {}}, r"position_embedding_type is {}.*need no conversion"),
        ({"pruned_heads": {"0": [1]}}, r"pruned_heads is {'0': \[1\]}, which TAPE's model does not support"),
    ],
)
def test_an_unsupported_setting_is_named(tmp_path: Path, written: Path, changes: dict, words: str) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, **changes}))
    with pytest.raises(CheckpointError, match=f"copy: {words}"):
        open_source(copy, SourceOptions())


def test_a_directory_without_tokenizer_needs_a_vocabulary_file(tmp_path: Path, tape: Path, written: Path) -> None:
    """ProtBert has as many tokens as TAPE, in another order."""
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"copy: .* order of its 30 tokens is unknown: give --vocab-file"):
        verify_only(copy, tape, SourceOptions())
    verify_only(copy, tape, SourceOptions(vocabulary=tuple(TAPETokenizer().tokens)))


def test_a_head_with_another_activation_is_approximated_or_dropped_on_request(tmp_path: Path) -> None:
    source = tape_model(tmp_path / "tape", hidden_act="gelu_tanh", mlm_hidden_act="gelu")
    with pytest.raises(ConfigError, match=r"one activation.*--lm-head drop .*--lm-head approximate"):
        convert(ConversionRequest(source, tmp_path / "hf", "huggingface"), silent)
    assert not (tmp_path / "hf").exists()
    certificate = convert(ConversionRequest(source, tmp_path / "hf", "huggingface", lm_head="approximate"), silent)
    assert certificate.approximation is not None
    assert 1e-7 < certificate.approximation.worst[1] <= certificate.approximation.bound
    assert LOGITS not in certificate.parity.differences
    convert(ConversionRequest(source, tmp_path / "encoder", "huggingface", lm_head="drop"), silent)
    report = json.loads((tmp_path / "encoder" / "conversion.json").read_text())
    assert report["dropped"]["mlm.bias"] == "requested by --lm-head drop"
    assert report["certificate"]["not_compared"] == ["logits"]
    model = transformers.AutoModel.from_pretrained(tmp_path / "encoder", add_pooling_layer=False)
    assert type(model).__name__ == "MegatronBertModel"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"hidden_act": "mish"}, "hidden_act 'mish'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"num_attention_heads": 5}, "num_attention_heads 5"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_other_configurations_are_refused(tmp_path: Path, written: Path, change: dict[str, Any], words: str) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    values = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(values))
    with pytest.raises((CheckpointError, ConfigError), match=words):
        open_source(copy, SourceOptions())


def test_an_untied_decoder_is_refused(tmp_path: Path, written: Path) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    state = load_file(copy / "model.safetensors")
    state["cls.predictions.decoder.weight"] += 1
    save_file(state, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"cls\.predictions\.decoder\.weight.*tied .*--lm-head drop converts"):
        convert(ConversionRequest(copy, tmp_path / "out"), silent)
    convert(ConversionRequest(copy, tmp_path / "out", lm_head="drop"), silent)
    assert not open_source(tmp_path / "out", SourceOptions()).has_head


def test_the_bias_of_the_decoder_may_have_either_name(tmp_path: Path, written: Path) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    state = load_file(copy / "model.safetensors")
    biases = {name: state.pop(name) for name in list(state) if name in NAMES_OF_BIAS}
    save_file({**state, "cls.predictions.decoder.bias": biases["cls.predictions.bias"]}, copy / "model.safetensors")
    mapped, expected = (open_source(path, SourceOptions()).map().state for path in (copy, written))
    assert all(torch.equal(mapped[name].load(), expected[name].load()) for name in expected)


def test_a_model_that_hugging_face_cannot_represent_is_refused(tmp_path: Path) -> None:
    source = tape_model(tmp_path / "tape", apply_final_ln=False)
    with pytest.raises(ConfigError, match="always applies the final layer norm"):
        convert(ConversionRequest(source, tmp_path / "hf", "huggingface"), silent)
    pruned = tape_model(tmp_path / "pruned", pruned_heads={0: [1]})
    with pytest.raises(ConfigError, match="this model has pruned heads"):
        convert(ConversionRequest(pruned, tmp_path / "hf", "huggingface"), silent)
    with pytest.raises(ConfigError, match=r"give a directory \(--to huggingface\)"):
        convert(ConversionRequest(source, tmp_path / "hf.safetensors", "huggingface"), silent)


def saved_by_transformers(folder: Path, kind: str) -> Path:
    """A small random model that transformers has saved, with TAPE's tokens."""
    family = kind.partition("For")[0]
    sizes = {"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = getattr(transformers, f"{family}Config")(**sizes, intermediate_size=64, max_position_embeddings=40)
    getattr(transformers, kind)(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(TAPETokenizer().tokens))
    return folder


def test_the_card_of_a_bert_is_about_the_pooler_of_its_source(tmp_path: Path) -> None:
    """tape-proteins 0.5's models have one, which a masked language model's loss does not reach."""
    source = saved_by_transformers(tmp_path / "hf", "BertForMaskedLM")
    convert(ConversionRequest(source, tmp_path / "tape"), silent)
    convert(ConversionRequest(tmp_path / "tape", tmp_path / "again", "huggingface"), silent)
    assert "`pooler_output` is that of the source's pooler" in (tmp_path / "again" / "README.md").read_text()


def test_a_bert_without_pooler_gets_a_new_one(tmp_path: Path) -> None:
    """As the Trainer of transformers saves it; TAPE's value and class heads need a pooler."""
    source = saved_by_transformers(tmp_path / "hf", "BertForMaskedLM")
    lines: list[str] = []
    for name in ("one", "two"):
        convert(ConversionRequest(source, tmp_path / name), lines.append)
    model, info = ProteinBertForMaskedLM.from_pretrained(tmp_path / "one", output_loading_info=True)
    assert not any(info.values()), info
    weight = model.bert.pooler.dense.weight.detach()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.1)
    assert torch.equal(weight, load_state_dict(tmp_path / "two")["bert.pooler.dense.weight"])
    report = json.loads((tmp_path / "one" / "conversion.json").read_text())
    assert report["filled"].keys() == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert any(line.startswith("  filled in: bert.pooler.dense.weight") for line in lines)


@pytest.mark.parametrize(
    "kind", ["BertForTokenClassification", "BertForSequenceClassification", "MegatronBertForSequenceClassification"]
)
def test_the_head_of_a_finetuned_model_is_dropped_by_name(tmp_path: Path, kind: str) -> None:
    """A linear map, which none of TAPE's heads is."""
    lines: list[str] = []
    convert(ConversionRequest(saved_by_transformers(tmp_path / "hf", kind), tmp_path / "out"), lines.append)
    assert not any(name.startswith("classifier.") for name in load_state_dict(tmp_path / "out"))
    dropped = json.loads((tmp_path / "out" / "conversion.json").read_text())["dropped"]
    assert {"classifier.weight", "classifier.bias"} <= dropped.keys()
    assert any(line.startswith("  dropped: classifier.") and "head of a finetuning task" in line for line in lines)


def test_a_config_that_contradicts_the_weights_is_refused(written: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy", ignore=WITHOUT_SUMS))
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, "layer_norm_eps": 0.5}))
    with pytest.raises(
        CheckpointError, match=r"config\.json: layer_norm_eps is 0\.5, but model\.safetensors was saved"
    ):
        convert(ConversionRequest(copy, tmp_path / "out"), silent)
