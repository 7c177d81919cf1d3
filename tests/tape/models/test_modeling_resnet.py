"""TAPE's residual network against plain convolutions of each protein by itself."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tape.configs import ProteinResNetConfig
from tape.models.modeling_resnet import (
    MaskedConv1d,
    ProteinResNetForMaskedLM,
    ProteinResNetForValuePrediction,
    ProteinResNetModel,
)

LENGTHS = (9, 3, 17)


def small(**changes) -> ProteinResNetConfig:
    return ProteinResNetConfig(**{"hidden_size": 8, "num_hidden_layers": 3, "head_hidden_size": 16, **changes})


def widen(model: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5)


def read_alone(model: ProteinResNetModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States (S, H) and pooled (H,) of one unpadded protein."""
    embeddings, pooler = model.embeddings, model.pooler
    distance = torch.arange(len(ids) - 1, -1, -1.0)
    angle = torch.outer(distance, 10000.0 ** (-torch.arange(0, 8, 2) / 8))
    norm = embeddings.layer_norm
    words = embeddings.word_embeddings.weight[ids] + torch.cat([angle.sin(), angle.cos()], 1)
    states = F.layer_norm(words, (8,), norm.weight, norm.bias, 1e-12)
    for block in model.encoder.layer:
        hidden = states
        for conv, normalize in ((block.conv1, block.bn1.norm), (block.conv2, block.bn2.norm)):
            if conv is block.conv2:
                hidden = F.gelu(hidden)
            hidden = F.conv1d(hidden.T[None], conv.weight, padding=1)[0].T
            hidden = F.layer_norm(hidden, (8,), normalize.weight, normalize.bias, 1e-12)
        states = F.gelu(states + hidden)
    scores = states @ pooler.attention_weights.weight[0] + pooler.attention_weights.bias
    weights = scores.softmax(0) if model.config.resnet_pooler == "attention" else torch.ones_like(scores)
    return states, torch.tanh(pooler.dense(weights @ states))


@pytest.mark.parametrize("pooler", ["attention", "sum"])
def test_states_and_pooled_are_those_of_each_protein_alone(proteins, pooler):
    model = ProteinResNetModel(small(resnet_pooler=pooler)).eval()
    widen(model)
    ids, mask = proteins(*LENGTHS)
    states, pooled = model(ids, mask)
    for row, length in enumerate(LENGTHS):
        alone, vector = read_alone(model, ids[row, :length])
        torch.testing.assert_close(states[row, :length], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pooled[row], vector, rtol=1e-4, atol=1e-5)
        assert states[row, length:].abs().sum() == 0


def test_masked_convolution_ignores_what_is_at_padding():
    """Used as by third-party models that import it: a mask (B, 1, L), or none."""
    convolution = MaskedConv1d(3, 4, 3, padding=1)
    features, mask = torch.randn(2, 3, 6), torch.tensor([[[1, 1, 1, 1, 0, 0]], [[1] * 6]])
    cleared = features.clone()
    cleared[0, :, 4:] = 0
    torch.testing.assert_close(convolution(features, mask), convolution(cleared))


def test_embeddings_are_computed_alone(proteins):
    embeddings = ProteinResNetModel(small()).eval().embeddings
    ids, _ = proteins(9)
    torch.testing.assert_close(embeddings(ids), embeddings(ids, torch.ones_like(ids, dtype=torch.bool)))


def test_masked_language_model_decodes_with_its_word_embeddings(proteins):
    model = ProteinResNetForMaskedLM(small()).eval()
    assert model.mlm.decoder.weight is model.resnet.embeddings.word_embeddings.weight
    ids, mask = proteins(*LENGTHS)
    targets = torch.full_like(ids, -1)
    targets[0, 3], targets[2, 16] = 7, 9
    (loss, _), logits = model(ids, mask, targets)
    expected = -(logits[0, 3].log_softmax(-1)[7] + logits[2, 16].log_softmax(-1)[9]) / 2
    torch.testing.assert_close(loss, expected)


def test_state_dict_names_are_the_published_ones():
    shapes = {name: tuple(value.shape) for name, value in ProteinResNetForValuePrediction(small()).state_dict().items()}
    for layer in range(3):
        for number in (1, 2):
            assert shapes.pop(f"resnet.encoder.layer.{layer}.conv{number}.weight") == (8, 8, 3)
            for name in ("weight", "bias"):
                assert shapes.pop(f"resnet.encoder.layer.{layer}.bn{number}.norm.{name}") == (8,)
    head = "predict.value_prediction.main"
    assert shapes == {
        "resnet.embeddings.word_embeddings.weight": (30, 8),
        "resnet.embeddings.inverse_frequency": (4,),
        "resnet.embeddings.layer_norm.weight": (8,),
        "resnet.embeddings.layer_norm.bias": (8,),
        "resnet.pooler.attention_weights.weight": (1, 8),
        "resnet.pooler.attention_weights.bias": (1,),
        "resnet.pooler.dense.weight": (8, 8),
        "resnet.pooler.dense.bias": (8,),
        f"{head}.0.weight_v": (16, 8),
        f"{head}.0.weight_g": (),
        f"{head}.0.bias": (16,),
        f"{head}.3.weight_v": (1, 16),
        f"{head}.3.weight_g": (),
        f"{head}.3.bias": (1,),
    }
    assert (ProteinResNetConfig().hidden_size, ProteinResNetConfig().num_hidden_layers) == (512, 30)


def test_a_checkpoint_of_tape_keeps_its_pooler_and_the_width_of_its_head(tmp_path):
    """Its config.json knows neither: TAPE added states up, in a head of 512."""
    model = ProteinResNetForValuePrediction(small(head_hidden_size=12))
    stated = {"hidden_size": 8, "num_hidden_layers": 3, "vocab_size": 30}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = ProteinResNetForValuePrediction.from_pretrained(tmp_path)
    assert (loaded.config.resnet_pooler, loaded.config.head_hidden_size) == ("sum", 12)
    model.save_pretrained(tmp_path / "ours")
    assert ProteinResNetForValuePrediction.from_pretrained(tmp_path / "ours").config.resnet_pooler == "attention"
