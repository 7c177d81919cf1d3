"""The certificate: its reference forward pass agrees with transformers, and wrong conversions are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converter.convert import ConversionRequest, convert
from converter.formats.detection import Source, open_source
from converter.mapping import transforms
from converter.options import SourceOptions
from converter.verify.certificate import Comparison, certificate_proteins, certify
from converter.verify.reference_forward import FINAL, LOGITS, LOSS, ModelForward
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.models.lazy_tensors import LazyTensor
from tape.models.model_directory import load_state_dict
from tests.support.megatron_writer import LETTERS, SPECIAL, Truth, expected_state, make_truth, write_megatron

WITHOUT_SUMS = shutil.ignore_patterns("SHA256SUMS", "conversion.json")  # of copies that a test changes

PROTEIN = "MQIFVKTLTGKTITLEVEPSD"


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, truth: Truth) -> Source:
    folder = write_megatron(tmp_path_factory.mktemp("verify") / "mega", truth, version=1.0, tp=2)
    return open_source(folder, SourceOptions())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, source: Source) -> Path:
    out = tmp_path_factory.mktemp("verify_out") / "out"
    convert(ConversionRequest(source.path, out), progress=lambda line: None)
    return out


def oracle(truth: Truth) -> torch.nn.Module:
    """`transformers`' Megatron BERT with the same weights and the erf GELU."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MegatronBertConfig(
        vocab_size=30,
        hidden_size=truth.hidden,
        num_hidden_layers=truth.layers,
        num_attention_heads=truth.heads,
        intermediate_size=truth.wide,
        hidden_act="gelu",
        max_position_embeddings=truth.positions,
        type_vocab_size=1,
        layer_norm_eps=1e-12,
    )
    model = transformers.MegatronBertForMaskedLM(config).eval()
    renames = (
        (".input_ln.", ".attention.ln."),
        (".attention.dense.", ".attention.output.dense."),
        (".post_attn_ln.", ".ln."),
        (".mlp.dense_h_4h.", ".intermediate.dense."),
        (".mlp.dense_4h_h.", ".output.dense."),
        (".final_ln.", ".ln."),
        ("mlm.transform", "cls.predictions.transform"),
        ("mlm.decoder", "cls.predictions.decoder"),
        ("mlm.bias", "cls.predictions.bias"),
    )
    state = {}
    for name, value in expected_state(truth).items():
        for old, new in renames:
            name = name.replace(old, new)
        state[name] = value
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"cls.predictions.decoder.bias", "bert.embeddings.position_ids"}
    return model.double()


def test_the_reference_forward_pass_agrees_with_transformers(source: Source, truth: Truth) -> None:
    tokens = ["<pad>", "<mask>", "<cls>", "<sep>", "<unk>", *LETTERS]
    ids = torch.tensor([[2, *(tokens.index(letter) for letter in PROTEIN), 3]])
    with torch.no_grad():
        output = oracle(truth)(ids, output_hidden_states=True)
    (states,) = source.reference_forward(None).states([PROTEIN])
    assert torch.allclose(states[LOGITS], output.logits[0], rtol=0, atol=1e-10)
    assert torch.allclose(states["layer 0"], output.hidden_states[1][0], rtol=0, atol=1e-10)


def test_the_certificate_covers_every_layer(source: Source, good: Path, truth: Truth) -> None:
    certificate = certify(source, open_source(good, SourceOptions()), torch.float32)
    stages = certificate.parity.differences
    layers = [name for n in range(truth.layers) for name in (f"layer {n} keys", f"layer {n}")]
    assert list(stages) == ["embeddings", *layers, FINAL, LOGITS, LOSS]
    assert max(stages.values()) < 1e-9
    assert certificate.rounding is None


def test_the_loss_counts_the_rows_of_padding(source: Source, truth: Truth) -> None:
    """The reference computes it rank by rank; here it is one matrix with all 256 rows, 225 of them noise."""
    (states,) = source.reference_forward(None).states([PROTEIN])
    hidden = oracle(truth).cls.predictions.transform(states[FINAL]).detach()
    noise = torch.full((225, truth.hidden), 7.5)
    words = torch.cat([torch.stack([truth.words[token] for token in (*SPECIAL, *LETTERS)]), noise]).double()
    bias = torch.tensor([*(truth.word_bias[token] for token in (*SPECIAL, *LETTERS)), *[7.5] * 225]).double()
    rows = torch.tensor([(*SPECIAL, *LETTERS).index(token) for token in ("[CLS]", *PROTEIN, "[SEP]")])
    expected = torch.nn.functional.cross_entropy(hidden @ words.T + bias, rows, reduction="none")
    assert torch.allclose(states[LOSS][:, 0], expected, rtol=0, atol=1e-9)


def test_the_effect_of_dropped_rows_is_reported(source: Source, good: Path) -> None:
    certificate = certify(source, open_source(good, SourceOptions()), torch.float32)
    assert certificate.dropped_rows > 1
    assert certificate.as_json()["largest_effect_of_dropped_rows_on_loss"] == certificate.dropped_rows
    assert any("rows without a token" in line for line in certificate.summary())
    again = certify(open_source(good, SourceOptions()), open_source(good, SourceOptions()), torch.float32)
    assert again.dropped_rows < 1e-9
    assert not any("rows without a token" in line for line in again.summary())


@pytest.mark.parametrize("tensor_parallel", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_of_padding_do_not_change_megatrons_loss(
    tmp_path: Path, good: Path, tensor_parallel: int, dtype: torch.dtype
) -> None:
    request = ConversionRequest(good, tmp_path / "mega", "megatron", dtype, tensor_parallel)
    certificate = convert(request, progress=lambda line: None)
    assert certificate.parity.differences[LOSS] < 1e-9
    written = open_source(tmp_path / "mega", SourceOptions())
    assert certify(written, written, dtype).dropped_rows < 1e-9


def test_rows_of_padding_with_probability_are_refused(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transforms, "PADDING_BIAS", 0.0)
    with pytest.raises(CheckpointError, match="loss over all rows differs by"):
        convert(ConversionRequest(good, tmp_path / "mega", "megatron"), progress=lambda line: None)
    assert not (tmp_path / "mega").exists()


def test_padding_does_not_change_the_states(good: Path) -> None:
    weights = {name: LazyTensor.of(value) for name, value in load_state_dict(good).items()}
    result = ModelForward(ProteinBertConfig.from_pretrained(good), weights)
    alone = result.states([PROTEIN[:5]])[0]
    together = result.states([PROTEIN[:5], PROTEIN])[0]
    for name, state in alone.items():
        assert torch.allclose(state, together[name], rtol=0, atol=1e-12)


def check(source: Source, result: Path) -> None:
    """Verify a written directory as the converter does."""
    opened = open_source(result, SourceOptions())
    opened.map()
    certify(source, opened, torch.float32)


def corrupt(good: Path, folder: Path, name: str) -> Path:
    """Copy a directory and change one value of one tensor."""
    copy = Path(shutil.copytree(good, folder / "bad", ignore=WITHOUT_SUMS))
    state = load_file(copy / "model.safetensors")
    state[name].view(-1)[-1] += 0.01
    save_file(state, copy / "model.safetensors")
    return copy


def test_every_corrupted_tensor_is_refused(tmp_path: Path, source: Source, good: Path, truth: Truth) -> None:
    for number, name in enumerate(expected_state(truth)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(CheckpointError, match=r"do not compute the same as the source|mlm.decoder.weight: .*tied"):
            check(source, corrupt(good, folder, name))


def test_missing_and_unexpected_weights_are_refused(tmp_path: Path, source: Source, good: Path) -> None:
    copy = Path(shutil.copytree(good, tmp_path / "bad", ignore=WITHOUT_SUMS))
    state = load_file(copy / "model.safetensors")
    save_file({**state, "bert.extra": torch.zeros(1)}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"bert\.extra: unknown key"):
        check(source, copy)
    del state["mlm.bias"]
    save_file(state, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"mlm\.bias is missing"):
        check(source, copy)


def test_truncated_result_is_refused(tmp_path: Path, source: Source, good: Path) -> None:
    copy = Path(shutil.copytree(good, tmp_path / "bad", ignore=WITHOUT_SUMS))
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        check(source, copy)


def test_nan_is_the_largest_difference_and_never_passes() -> None:
    comparison = Comparison({"a": 1.0, "b": float("nan"), "c": 0.5}, 2.0, False)
    assert comparison.worst[0] == "b"
    assert not comparison.passed
    assert Comparison({"a": 1.0}, 1.0, False).passed


def test_proteins_fit_the_position_table_and_contain_every_letter() -> None:
    proteins = certificate_proteins(38)
    assert max(map(len, proteins)) == 38
    assert min(map(len, proteins)) >= 1
    assert set("".join(proteins)) == set(LETTERS)
    assert proteins == certificate_proteins(38)
    assert len(SPECIAL) == 6


def test_random_proteins_reach_the_maximum_length() -> None:
    assert len(certificate_proteins(2174)[-1]) == 128
    assert np.all([len(protein) <= 128 for protein in certificate_proteins(2174)])
