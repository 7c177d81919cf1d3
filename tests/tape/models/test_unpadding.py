"""Padded batches are computed as packed rows of their real tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tape.configs import ProteinBertConfig
from tape.models import modeling_bert
from tape.models.modeling_bert import ProteinBertModel
from tape.models.unpadding import Unpadding, is_unpadded
from tape.runtime.precision import autocast

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
    ("lengths", "slots", "size"),
    [((40, 37, 20), 40, 100), ((64, 3, 1), 64, 68), ((70, 70, 69), 70, 210), ((500, 3), 500, 512)],
    ids=["rounded", "short proteins", "no larger than the batch", "more padding than the shortest"],
)
def test_a_row_may_have_one_of_a_few_sizes(lengths: tuple[int, ...], slots: int, size: int) -> None:
    mask = _mask(lengths, slots)
    unpadding = Unpadding.of(mask, few_sizes=True)
    assert unpadding is not None
    values = torch.randn(len(lengths), slots, 5)
    tokens = unpadding.unpad(values)
    assert tokens.shape == (1, size, 5)
    assert not tokens[0, sum(lengths) :].any()
    assert unpadding.layout.lengths[: len(lengths)] == lengths
    assert unpadding.layout.tokens == size
    assert int(unpadding.layout.positions.max()) < slots
    torch.testing.assert_close(unpadding.pad(tokens), values * mask[..., None])


@pytest.mark.parametrize(
    "mask",
    [_mask((14, 14)), _mask((0, 14)), _mask().flip(1), torch.ones(0, 5, dtype=torch.bool)],
    ids=["no padding", "no token", "padding in front", "no protein"],
)
def test_other_batches_are_computed_as_they_are(mask: Tensor) -> None:
    assert Unpadding.of(mask) is None


@pytest.mark.parametrize("few_sizes", [True, False])
@pytest.mark.parametrize("position", ["pre", "post"])
def test_the_model_computes_the_same_and_hardly_on_padding(
    position: str, few_sizes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling_bert, "needs_few_shapes", lambda values: few_sizes)
    lengths, slots = (19, 37, 5), 37
    mask = _mask(lengths, slots)
    config = ProteinBertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=slots,
        output_hidden_states=True,
        layer_norm_position=position,
    )
    torch.manual_seed(0)
    model = ProteinBertModel(config).eval()
    ids = torch.randint(5, 25, (3, slots)) * mask
    tokens: list[int] = []
    model.encoder.layer[0].mlp.register_forward_hook(lambda _, inputs, output: tokens.append(output[..., 0].numel()))

    def results() -> tuple[list[Tensor], Tensor | None]:
        model.zero_grad()
        states, pooled, every = model(ids, input_mask=mask)
        (states * mask[..., None]).sum().backward()
        return [states, pooled, *every], model.embeddings.word_embeddings.weight.grad

    unpadded, gradient = results()
    monkeypatch.setattr(Unpadding, "of", lambda *_: None)
    padded, expected_gradient = results()
    assert tokens == [62 if few_sizes else 61, 3 * slots]
    for ours, expected in zip(unpadded, padded, strict=True):
        if ours.ndim == 3:
            assert not ours[~mask].any()
            ours, expected = ours[mask], expected[mask]
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def _key_masks(model: ProteinBertModel, monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """The masks that the model will give to its encoder."""
    given: list[Tensor | None] = []
    encode = model.encoder.forward

    def forward(states: Tensor, mask: Tensor | None = None, **others: Any) -> Any:
        given.append(mask)
        return encode(states, mask, **others)

    monkeypatch.setattr(model.encoder, "forward", forward)
    return given


@pytest.mark.parametrize("dropout", [0.0, 0.1])  # with it, attention is eager also in fp32
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("maps", [False, True])
def test_a_batch_without_padding_has_the_same_digits_without_its_mask(
    dropout: float, precision: str, maps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ProteinBertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attention_probs_dropout_prob=dropout,
        output_attentions=maps,
    )
    torch.manual_seed(0)
    model = ProteinBertModel(config).train()
    ids, mask = torch.randint(5, 25, (3, 40)), torch.ones(3, 40)
    given = _key_masks(model, monkeypatch)

    def results() -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(1)
        with autocast(precision, torch.device("cpu")):
            states, pooled, *others = model(ids, input_mask=mask)
        states.float().square().sum().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return [states, pooled, *(others[0] if maps else []), *gradients]

    without = results()
    monkeypatch.setattr(modeling_bert, "is_unpadded", lambda mask: False)
    with_mask = results()
    assert [one is None for one in given] == [True, False]
    assert all(torch.equal(ours, expected) for ours, expected in zip(without, with_mask, strict=True))


@pytest.mark.parametrize(
    "mask",
    [_mask((14, 13)), _mask((0, 14)), _mask().flip(1), torch.ones(0, 5, dtype=torch.bool), torch.ones(2, 3).bool()],
    ids=["padding", "no token", "padding in front", "no protein", "no padding"],
)
def test_a_batch_is_unpadded_if_all_tokens_are_real(mask: Tensor) -> None:
    assert is_unpadded(mask) == (mask.shape == (2, 3))
    assert not is_unpadded(mask.to("meta"))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_model_traced_without_padding_computes_batches_with_padding() -> None:
    config = ProteinBertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = ProteinBertModel(config).eval()
    first, second = torch.ones(3, 14, dtype=torch.bool), _mask()
    traced = torch.jit.trace(model, (5 * first.long(), first), check_trace=False)
    states, expected = traced(5 * second.long(), second)[0], model(5 * second.long(), second)[0]
    torch.testing.assert_close(states[second], expected[second])


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
