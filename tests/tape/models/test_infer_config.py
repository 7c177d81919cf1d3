"""Inference of ``apply_final_ln``, which ProteinLM's finetuned models do not state (bug 2 in docs/compatibility.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.modeling_bert import ProteinBertForValuePrediction, ProteinBertModel

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}


def directory(folder: Path, model: Any, tail: bool, **values: object) -> Path:
    """A directory as ProteinLM's code writes it, with few values in ``config.json``; ``tail`` adds its unused layer."""
    folder.mkdir()
    state = dict(model.state_dict())
    if tail:
        prefix = "bert." if any(name.startswith("bert.") for name in state) else ""
        state[f"{prefix}bert_tail_dense.weight"] = torch.zeros(32, 32)
    (folder / "config.json").write_text(json.dumps({**SIZES, **values}))
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def finetuned() -> ProteinBertForValuePrediction:
    return ProteinBertForValuePrediction(ProteinBertConfig(**SIZES))


def test_a_model_finetuned_by_proteinlm_skips_it(tmp_path: Path, finetuned: ProteinBertForValuePrediction) -> None:
    theirs = directory(tmp_path / "theirs", finetuned, tail=True)
    assert not ProteinBertForValuePrediction.from_pretrained(theirs).config.apply_final_ln
    assert not ProteinBertModel.from_pretrained(theirs).config.apply_final_ln


def test_a_pretrained_encoder_applies_it(tmp_path: Path) -> None:
    encoder = ProteinBertModel(ProteinBertConfig(**SIZES))
    for tail in (False, True):
        found = directory(tmp_path / str(tail), encoder, tail=tail)
        assert ProteinBertForValuePrediction.from_pretrained(found).config.apply_final_ln


def test_the_configuration_and_overrides_have_precedence(
    tmp_path: Path, finetuned: ProteinBertForValuePrediction
) -> None:
    theirs = directory(tmp_path / "theirs", finetuned, tail=True)
    assert ProteinBertModel.from_pretrained(theirs, apply_final_ln=True).config.apply_final_ln
    stated = directory(tmp_path / "stated", finetuned, tail=False, apply_final_ln=True)
    assert ProteinBertModel.from_pretrained(stated).config.apply_final_ln


def test_a_finetuned_model_of_unknown_origin_must_state_it(
    tmp_path: Path, finetuned: ProteinBertForValuePrediction
) -> None:
    unknown = directory(tmp_path / "unknown", finetuned, tail=False)
    with pytest.raises(ConfigError, match=r'unknown/config\.json: add "apply_final_ln", .* false if .* otherwise true'):
        ProteinBertForValuePrediction.from_pretrained(unknown)


def test_our_own_models_state_it(tmp_path: Path, finetuned: ProteinBertForValuePrediction) -> None:
    finetuned.save_pretrained(tmp_path)
    assert ProteinBertForValuePrediction.from_pretrained(tmp_path).config.apply_final_ln


def test_post_layer_norm_models_have_none_to_infer(tmp_path: Path) -> None:
    model = ProteinBertForValuePrediction(ProteinBertConfig(layer_norm_position="post", **SIZES))
    ProteinBertForValuePrediction.from_pretrained(directory(tmp_path / "post", model, tail=False))
