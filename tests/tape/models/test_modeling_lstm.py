"""TAPE's LSTM against plain ``nn.LSTM`` layers run on each protein by itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tape.configs import ProteinLSTMConfig
from tape.errors import ConfigError
from tape.models.modeling_lstm import ProteinLSTMForLM, ProteinLSTMForValuePrediction, ProteinLSTMModel

LENGTHS = (9, 2, 17)


def small(**changes) -> ProteinLSTMConfig:
    sizes = {"input_size": 6, "hidden_size": 8, "num_hidden_layers": 2, "head_hidden_size": 16}
    return ProteinLSTMConfig(**{**sizes, **changes})


def widen(model: nn.Module) -> None:
    """Weights large enough for every part to matter."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.4)


def read_alone(model: ProteinLSTMModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States (S, 2H) and pooled (H,) of one unpadded protein, layer by layer."""
    outputs, finals = [], []
    for stack, flip in ((model.encoder.forward_lstm, False), (model.encoder.reverse_lstm, True)):
        states = model.embed_matrix(ids)
        states = states.flip(0) if flip else states
        for layer in stack:
            states, (final, _) = layer.lstm(states)
            finals.append(final[0])
        outputs.append(states.flip(0) if flip else states)
    pooler = model.pooler
    weighted = sum(weight * final for weight, final in zip(pooler.scalar_reweighting.weight[0], finals, strict=True))
    return torch.cat(outputs, 1), torch.tanh(pooler.dense(weighted + pooler.scalar_reweighting.bias))


def test_states_and_pooled_are_those_of_each_protein_alone(proteins):
    model = ProteinLSTMModel(small()).eval()
    widen(model)
    ids, mask = proteins(*LENGTHS)
    states, pooled = model(ids, mask)
    assert states.shape == (3, 17, 16)
    for row, length in enumerate(LENGTHS):
        alone, vector = read_alone(model, ids[row, :length])
        torch.testing.assert_close(states[row, :length], alone)
        torch.testing.assert_close(pooled[row], vector)
        assert states[row, length:].abs().sum() == 0  # the backward stack saw no padding
    torch.testing.assert_close(model(ids[2:3])[0], states[2:3])  # without a mask all is real


def test_the_language_model_predicts_from_both_sides_but_not_from_the_token_itself(proteins):
    model = ProteinLSTMForLM(small()).eval()
    widen(model)
    ids, mask = proteins(*LENGTHS)
    targets = torch.where(mask.bool(), ids, -1)
    (loss, metrics), logits = model(ids, mask, targets)
    assert metrics == {}
    log_probability = []
    for row, length in enumerate(LENGTHS):
        states, _ = read_alone(model.lstm, ids[row, :length])
        before, after = states.chunk(2, dim=1)
        edge = torch.zeros(1, 8)
        decode = model.feedforward
        expected = decode(torch.cat([edge, before[:-1]])) + decode(torch.cat([after[1:], edge]))
        torch.testing.assert_close(logits[row, :length], expected)
        log_probability.append(expected.log_softmax(-1).gather(1, ids[row, :length, None]))
    torch.testing.assert_close(loss, -torch.cat(log_probability).mean())
    changed = ids.clone()
    changed[0, 4] = (changed[0, 4] - 5 + 1) % 25 + 5
    moved = (model(changed, mask)[0] - logits)[0].abs().sum(-1)
    assert moved[4] == 0
    assert (moved[[3, 5]] > 0).all()


def test_half_precision_reads_too(proteins):
    model = ProteinLSTMForValuePrediction(small()).eval()
    ids, mask = proteins(*LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (prediction,) = model(ids, mask)
    torch.testing.assert_close(prediction.float(), model(ids, mask)[0], atol=2e-2, rtol=2e-2)


def test_state_dict_names_are_the_published_ones():
    shapes = {name: tuple(value.shape) for name, value in ProteinLSTMForLM(small()).state_dict().items()}
    for stack in ("forward", "reverse"):
        for layer, width in ((0, 6), (1, 8)):
            prefix = f"lstm.encoder.{stack}_lstm.{layer}.lstm"
            assert shapes.pop(f"{prefix}.weight_ih_l0") == (32, width)
            assert shapes.pop(f"{prefix}.weight_hh_l0") == (32, 8)
            assert shapes.pop(f"{prefix}.bias_ih_l0") == shapes.pop(f"{prefix}.bias_hh_l0") == (32,)
    assert shapes == {
        "lstm.embed_matrix.weight": (30, 6),
        "lstm.pooler.scalar_reweighting.weight": (1, 4),
        "lstm.pooler.scalar_reweighting.bias": (1,),
        "lstm.pooler.dense.weight": (8, 8),
        "lstm.pooler.dense.bias": (8,),
        "feedforward.weight": (30, 8),
        "feedforward.bias": (30,),
    }
    config = ProteinLSTMConfig()
    assert (config.input_size, config.hidden_size, config.num_hidden_layers) == (128, 1024, 3)


def test_batches_and_rows_without_tokens_are_named(proteins):
    ids, mask = proteins(*LENGTHS)
    mask[1] = 0
    for model in (ProteinLSTMModel(small()), ProteinLSTMForValuePrediction(small())):
        with pytest.raises(ConfigError, match="input_ids has no proteins; the LSTM needs at least one"):
            model(ids[:0], mask[:0])
        with pytest.raises(ConfigError, match="input_mask has no tokens in row 1: even an empty protein has <cls>"):
            model(ids, mask)
