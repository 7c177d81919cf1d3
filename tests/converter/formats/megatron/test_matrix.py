"""All versions, layouts and key spellings of a Megatron-LM model convert to the same TAPE model."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from converter.convert import ConversionRequest, convert
from tape.configs import ProteinBertConfig
from tape.models.model_directory import load_state_dict
from tests.support.megatron_writer import Truth, expected_state, make_truth, write_megatron

MATRIX = list(itertools.product((0, 1.0, 2.0, 3.0), (1, 2, 4), (1, 2), (torch.float32, torch.float16)))


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth(layers=2)


@pytest.fixture(scope="module")
def truths(truth: Truth) -> dict[torch.dtype, Truth]:
    return {torch.float32: truth, torch.float16: make_truth(layers=2, dtype=torch.float16)}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value.float()), name


@pytest.mark.parametrize(("version", "tp", "pp", "dtype"), MATRIX)
def test_all_versions_and_layouts_give_the_same_model(
    tmp_path: Path, truths: dict[torch.dtype, Truth], version: float, tp: int, pp: int, dtype: torch.dtype
) -> None:
    # bugs 24, 25, 26, 34 in docs/compatibility.md: version, merge of ranks and stages, LM head
    modern = version > 0 and (tp + pp) % 2 == 0  # the new spelling of the keys came after version 3
    source = write_megatron(tmp_path / "mega", truths[dtype], version=version, tp=tp, pp=pp, modern=modern)
    certificate = convert(ConversionRequest(source, tmp_path / "out"), progress=lambda line: None)
    assert_same(load_state_dict(tmp_path / "out"), expected_state(truths[dtype]))
    assert certificate.parity.worst[1] < 1e-9


@pytest.mark.parametrize("zip_file", [True, False])
def test_zip_and_legacy_files_of_torch_give_the_same_model(tmp_path: Path, truth: Truth, zip_file: bool) -> None:
    source = write_megatron(tmp_path / "mega", truth, tp=2, iteration=None, zip_file=zip_file)
    convert(ConversionRequest(source, tmp_path / "out"), progress=lambda line: None)
    assert_same(load_state_dict(tmp_path / "out"), expected_state(truth))


@pytest.mark.parametrize(
    ("arguments", "head"), [({"bias_gelu_fusion": True}, "gelu"), ({"openai_gelu": True}, "gelu_tanh")]
)
def test_fused_gelu_is_tanh_in_the_blocks_and_follows_the_arguments_in_the_head(
    tmp_path: Path, truth: Truth, arguments: dict[str, bool], head: str
) -> None:
    # bug 28 in docs/compatibility.md. Megatron-LM's fused GELU, used in the blocks, is the tanh form; its LM head uses
    # the erf form.
    source = write_megatron(tmp_path / "mega", truth, tp=2, **arguments)
    certificate = convert(ConversionRequest(source, tmp_path / "out"), progress=lambda line: None)
    assert certificate.parity.worst[1] < 1e-9
    config = ProteinBertConfig.from_pretrained(tmp_path / "out")
    assert config.hidden_act == "gelu_tanh"
    assert (getattr(config, "mlm_hidden_act", None) or config.hidden_act) == head


def test_the_configuration_is_derived_from_the_arguments(tmp_path: Path, truth: Truth) -> None:
    source = write_megatron(
        tmp_path / "mega", truth, layernorm_epsilon=1e-5, hidden_dropout=0.2, attention_dropout=0.3, openai_gelu=True
    )
    convert(ConversionRequest(source, tmp_path / "out"), progress=lambda line: None)
    config = ProteinBertConfig.from_pretrained(tmp_path / "out")
    assert config.hidden_size == truth.hidden
    assert config.num_attention_heads == truth.heads
    assert config.num_hidden_layers == truth.layers
    assert config.intermediate_size == truth.wide
    assert config.max_position_embeddings == truth.positions
    assert config.type_vocab_size == 1
    assert config.vocab_size == 30
    assert config.layer_norm_eps == 1e-5
    assert config.hidden_dropout_prob == 0.2
    assert config.attention_probs_dropout_prob == 0.3
    assert config.hidden_act == "gelu_tanh"  # bug 28 in docs/compatibility.md
