"""Padded batches are computed as packed rows of their real tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tape.configs import ProteinBertConfig
from tape.models.modeling_bert import ProteinBertModel
from tape.models.unpadding import Unpadding

LENGTHS = (9, 14, 3)


def _mask(lengths: tuple[int, ...] = LENGTHS, slots: int = 14) -> Tensor:
    return torch.arange(slots) < torch.tensor(lengths)[:, None]


def test_padding_and_unpadding_are_inverse() -> None:
    unpadding = Unpadding.of(_mask())
    assert unpadding is not None
    values = torch.randn(3, 14, 5)
    tokens = unpadding.unpad(values)
    assert tokens.shape == (1, 26, 5)
    assert unpadding.layout.lengths == LENGTHS
    torch.testing.assert_close(unpadding.pad(tokens), values * _mask()[..., None])


@pytest.mark.parametrize(
    "mask",
    [_mask((14, 14)), _mask((0, 14)), _mask().flip(1), torch.ones(0, 5, dtype=torch.bool)],
    ids=["no padding", "no token", "padding in front", "no protein"],
)
def test_other_batches_are_computed_as_they_are(mask: Tensor) -> None:
    assert Unpadding.of(mask) is None


@pytest.mark.parametrize("position", ["pre", "post"])
def test_the_model_computes_the_same_and_only_on_real_tokens(position: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ProteinBertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=14,
        output_hidden_states=True,
        layer_norm_position=position,
    )
    torch.manual_seed(0)
    model = ProteinBertModel(config).eval()
    ids = torch.randint(5, 25, (3, 14)) * _mask()
    tokens: list[int] = []
    model.encoder.layer[0].mlp.register_forward_hook(lambda _, inputs, output: tokens.append(output[..., 0].numel()))

    def results() -> tuple[list[Tensor], Tensor | None]:
        model.zero_grad()
        states, pooled, every = model(ids, input_mask=_mask())
        (states * _mask()[..., None]).sum().backward()
        return [states, pooled, *every], model.embeddings.word_embeddings.weight.grad

    unpadded, gradient = results()
    monkeypatch.setattr(Unpadding, "of", lambda mask: None)
    padded, expected_gradient = results()
    assert tokens == [sum(LENGTHS), 3 * 14]
    for ours, expected in zip(unpadded, padded, strict=True):
        if ours.ndim == 3:
            assert not ours[~_mask()].any()
            ours, expected = ours[_mask()], expected[_mask()]
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_model_computes_batches_of_other_lengths() -> None:
    config = ProteinBertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = ProteinBertModel(config).eval()
    first, second = _mask(), _mask((4, 14, 11))
    traced = torch.jit.trace(model, (5 * first.long(), first), check_trace=False)
    states, expected = traced(5 * second.long(), second)[0], model(5 * second.long(), second)[0]
    torch.testing.assert_close(states[second], expected[second])


def test_the_default_device_does_not_matter() -> None:
    mask = _mask()
    with torch.device("meta"):
        unpadding = Unpadding.of(mask)
    assert unpadding is not None
    torch.testing.assert_close(unpadding.pad(unpadding.unpad(mask)), mask)
