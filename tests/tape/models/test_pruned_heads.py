"""Attention heads taken out of a transformer: what it computes then, and that it stays so when saved and loaded."""

from __future__ import annotations

import copy

import pytest
import torch

from tape.configs import ProteinOneHotConfig
from tape.errors import ConfigError
from tape.models.attention import PackedLayout
from tape.models.modeling_bert import ProteinBertForContactPrediction, ProteinBertForMaskedLM, ProteinBertModel
from tape.models.modeling_onehot import ProteinOneHotModel

PRUNED = {0: [1], 2: [0, 3]}
SIZE = 8  # of a head


def silenced(model: ProteinBertModel) -> ProteinBertModel:
    """The whole model, but nothing of the pruned heads reaches its residual stream."""
    whole = copy.deepcopy(model)
    with torch.no_grad():
        for layer, heads in PRUNED.items():
            for head in heads:
                whole.encoder.layer[layer].attention.dense.weight[:, head * SIZE : (head + 1) * SIZE] = 0
    return whole


@pytest.mark.parametrize("position", ["pre", "post"])
def test_a_pruned_model_computes_as_if_its_heads_were_silent(tiny_config, proteins, position):
    # bug 39 in docs/compatibility.md: prune_heads raised AttributeError
    model = ProteinBertModel(tiny_config(layer_norm_position=position, output_attentions=True)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    whole, numbers = silenced(model), sum(p.numel() for p in model.parameters())
    model.prune_heads({0: [1], 2: [3]})
    untouched = model.encoder.layer[0].attention.dense.weight
    model.prune_heads({2: [0, 3]})  # numbered as at first
    assert model.encoder.layer[0].attention.dense.weight is untouched  # an optimizer may have it
    assert model.config.pruned_heads == PRUNED
    assert sum(p.numel() for p in model.parameters()) == numbers - 3 * (4 * 32 * SIZE + 3 * SIZE)
    ids, mask = proteins(10, 20)
    (states, _, maps), (expected, _, all_maps) = model(ids, mask), whole(ids, mask)
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps[0], all_maps[0][:, [0, 2, 3]])
    states.square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.encoder.parameters())


def test_pruned_heads_stay_out_of_saved_models(tiny_config, proteins, tmp_path):
    model = ProteinBertForMaskedLM(tiny_config()).eval()
    model.prune_heads(PRUNED)
    model.save_pretrained(tmp_path)
    again = ProteinBertForMaskedLM.from_pretrained(tmp_path)
    assert again.config.pruned_heads == PRUNED
    packed = torch.cat([proteins(length)[0] for length in (7, 12)], 1)
    layout = PackedLayout.from_lengths((7, 12))
    torch.testing.assert_close(again(packed, packing=layout), model(packed, packing=layout), rtol=0, atol=0)
    task = ProteinBertForContactPrediction.from_pretrained(tmp_path)
    task.prune_heads({1: [2]})
    task.save_pretrained(tmp_path / "task")
    encoder = ProteinBertModel.from_pretrained(tmp_path / "task")
    assert encoder.config.pruned_heads == {**PRUNED, 1: [2]}
    ids, mask = proteins(5, 9)
    torch.testing.assert_close(encoder(ids, mask), task.eval().bert(ids, mask), rtol=0, atol=0)


def test_a_configuration_with_pruned_heads_makes_a_pruned_model(tiny_config):
    # bug 39 in docs/compatibility.md: it was accepted, and the model had all its heads
    model = ProteinBertModel(tiny_config(pruned_heads={"0": [1], "2": [0, 3]}))
    widths = [layer.attention.self.query.out_features // SIZE for layer in model.encoder.layer]
    assert widths == [3, 4, 2]
    assert [tuple(layer.attention.dense.weight.shape) for layer in model.encoder.layer] == [
        (32, 24),
        (32, 32),
        (32, 16),
    ]


def test_what_cannot_be_pruned_raises_and_changes_nothing(tiny_config):
    model = ProteinBertModel(tiny_config())
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    for heads, message in (({3: [0]}, "layers 0 to 2 with heads 0 to 3"), ({1: range(4)}, "all 4 heads of layer 1")):
        with pytest.raises(ConfigError, match=message):
            model.prune_heads({0: [1], **heads})
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    assert "pruned_heads" not in model.config.to_dict()
    with pytest.raises(ConfigError, match="ProteinOneHotModel has no attention heads"):
        ProteinOneHotModel(ProteinOneHotConfig()).prune_heads({0: [1]})
