"""Embeddings, blocks and pooler of ProteinBert, called one by one as in subclasses of others, and attention maps."""

from __future__ import annotations

import pytest
import torch

from tape.errors import ConfigError
from tape.models.attention import PackedLayout
from tape.models.modeling_bert import ProteinBertForValuePrediction, ProteinBertModel


def their_forward(model, input_ids, input_mask, token_type_ids=None, position_ids=None):
    """The parts of an encoder, as subclasses of others call them in their own ``forward``."""
    mask = (1.0 - input_mask[:, None, None, :].to(next(model.parameters()).dtype)) * -10000.0
    embedded = model.embeddings(input_ids, token_type_ids, position_ids)
    outputs = model.encoder(embedded, mask, chunks=None)
    return (outputs[0], model.pooler(outputs[0]), *outputs[1:])


@pytest.mark.parametrize("position", ["pre", "post"])
def test_the_parts_of_an_encoder_are_called_as_in_tape(tiny_config, proteins, position):
    config = tiny_config(
        layer_norm_position=position, type_vocab_size=2, output_hidden_states=True, output_attentions=True
    )
    model = ProteinBertModel(config).eval()
    ids, mask = proteins(6, 9)
    ours, theirs = model(ids, mask), their_forward(model, ids, mask)
    torch.testing.assert_close(theirs, ours)
    positions = torch.arange(9).expand(2, 9)
    torch.testing.assert_close(their_forward(model, ids, mask, torch.zeros_like(ids), positions), ours)
    other_type = their_forward(model, ids, mask, torch.ones_like(ids))
    expected = ours[2][0] - model.embeddings.token_type_embeddings.weight[0]
    if position == "pre":  # otherwise followed by a layer norm
        torch.testing.assert_close(
            other_type[2][0], expected + model.embeddings.token_type_embeddings.weight[1], rtol=1e-5, atol=1e-6
        )
    assert not torch.allclose(other_type[0], ours[0])


def test_other_attention_masks_are_refused(tiny_config, proteins):
    model = ProteinBertModel(tiny_config()).eval()
    ids, mask = proteins(6, 9)
    embedded = model.embeddings(ids)
    torch.testing.assert_close(model.encoder(embedded, mask), model.encoder(embedded, mask.bool()))
    distances = -(torch.arange(9.0) - 4).abs()
    for other in (distances.expand(2, 1, 1, 9), torch.zeros(2, 1, 9, 9), mask[0]):
        with pytest.raises(ConfigError, match=r"an attention mask \(.*\) is not supported: give \(B, S\) with 1"):
            model.encoder(embedded, other)
    model.config.output_attentions = True
    with pytest.raises(ConfigError, match="a packed row has no attention maps"):
        model(proteins(4)[0].repeat(1, 2), packing=PackedLayout.from_lengths([4, 4]))


@pytest.mark.parametrize("recompute", [False, True])
def test_attention_maps_have_gradients(tiny_config, proteins, recompute):
    """As attributions compute them: the gradient of a prediction with respect to each map."""
    model = ProteinBertForValuePrediction(tiny_config(output_attentions=True)).eval()
    model.bert.encoder.checkpoint_activations = recompute
    ids, _ = proteins(9)
    prediction, maps = model(ids)
    gradients = torch.autograd.grad(prediction, maps)
    assert [gradient.shape for gradient in gradients] == [(1, 4, 9, 9)] * 3
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    model.config.output_attentions = False
    torch.testing.assert_close(model(ids)[0], prediction)
