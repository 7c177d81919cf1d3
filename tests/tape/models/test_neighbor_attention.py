"""Initialization of heads that attend to neighbors: their offsets, unchanged parameters, invalid configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models import modeling_bert
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertModel
from tape.models.neighbor_attention import neighbor_start, offsets

HEADS, LAYERS, HIDDEN = 8, 3, 128
RESIDUES = torch.randint(5, 25, (1, 300), generator=torch.Generator().manual_seed(1))


def config(**changes: Any) -> ProteinBertConfig:
    values: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * HIDDEN,
        "max_position_embeddings": 2176,
        "type_vocab_size": 1,
        "initializer_range": 0.03,
        "initial_attention": "neighbours",
        "output_attentions": True,
    }
    return ProteinBertConfig(**{**values, **changes})


def at_offsets(made: ProteinBertConfig) -> Tensor:
    """(layers, heads): mean attention probability of the residue that each head is meant to look at, or of its own."""
    torch.manual_seed(3)
    with torch.no_grad():
        maps = ProteinBertModel(made).eval()(RESIDUES)[-1]
    kind = "neighbours" if made.initial_attention == "random" else made.initial_attention
    own = [offsets(layer, HEADS, kind) for layer in range(LAYERS)]
    return torch.stack(
        [
            torch.stack([layer[0, head].diagonal(offset or 0).mean() for head, offset in enumerate(heads)])
            for layer, heads in zip(maps, own, strict=True)
        ]
    )


def test_offsets_go_both_ways() -> None:
    assert offsets(0, 8) == offsets(2, 8) == [1, -1, 2, -2, 3, -3, 4, -4]
    assert offsets(1, 8) == [5, -5, 6, -6, 7, -7, 8, -8]
    assert offsets(5, 3) == [-8, 1, -1]
    assert offsets(0, 8, "half-neighbours") == [1, -1, 2, -2, None, None, None, None]
    assert offsets(1, 8, "half-neighbours") == [3, -3, 4, -4, None, None, None, None]
    assert offsets(4, 3, "half-neighbours") == [3, None, None]


@pytest.mark.parametrize("std", [0.01, 0.03])
def test_every_head_of_every_layer_begins_at_its_neighbor(std: float) -> None:
    seen = at_offsets(config(initializer_range=std))
    assert seen.min() > 0.8  # 300 residues: 0.003 would be uniform


@pytest.mark.parametrize("std", [0.01, 0.03])
def test_half_of_the_heads_begin_at_their_neighbors_and_half_nowhere(std: float) -> None:
    seen = at_offsets(config(initializer_range=std, initial_attention="half-neighbours"))
    assert seen[:, : HEADS // 2].min() > 0.8
    assert seen[:, HEADS // 2 :].max() < 0.01


def test_random_heads_look_nowhere_in_particular() -> None:
    assert at_offsets(config(initial_attention="random")).max() < 0.01


@pytest.mark.parametrize("kind", ["neighbours", "half-neighbours"])
def test_neighbor_attention_holds_at_late_positions(kind: str) -> None:
    torch.manual_seed(3)
    model = ProteinBertModel(config(initial_attention=kind)).eval()
    with torch.no_grad():
        first = model(RESIDUES, position_ids=torch.arange(1800, 2100)[None])[-1][0][0]
    found = [offset for offset in offsets(0, HEADS, kind) if offset is not None]
    assert len(found) == (HEADS if kind == "neighbours" else HEADS // 2)
    for head, offset in enumerate(found):
        assert first[head].diagonal(offset).mean() > 0.8


def test_the_larger_positions_of_half_neighbours_are_read_behind_large_outputs() -> None:
    """Blocks add outputs to the residual stream; what later blocks see of the position then depends on its size."""
    seen = {}
    for kind in ("neighbours", "half-neighbours"):
        torch.manual_seed(3)
        model = ProteinBertModel(config(initial_attention=kind)).eval()
        with torch.no_grad():
            for layer in model.encoder.layer:
                layer.mlp.dense_4h_h.weight.mul_(8)
            maps = model(RESIDUES)[-1]
        seen[kind] = maps[2][0, 0].diagonal(offsets(2, HEADS, kind)[0] or 0).mean()
    assert seen["half-neighbours"] > seen["neighbours"] + 0.3


def test_other_parameters_keep_their_initialization() -> None:
    changed = (
        *("word_embeddings", "position_embeddings", "self.query", "self.key", "mlm.decoder"),
        *("attention.dense", "dense_4h_h"),
    )
    torch.manual_seed(5)
    plain = ProteinBertForMaskedLM(config(initial_attention="random")).state_dict()
    torch.manual_seed(5)
    made = ProteinBertForMaskedLM(config()).state_dict()
    for name, value in made.items():
        if name.endswith("weight") and any(word in name for word in changed):
            assert not torch.equal(value, plain[name]), name
        else:
            assert torch.equal(value, plain[name]), name
    assert torch.equal(made["mlm.decoder.weight"], made["bert.embeddings.word_embeddings.weight"])


def test_values_given_are_not_changed() -> None:
    layer = "encoder.layer.0."
    for name in (
        *("word_embeddings.weight", "position_embeddings.weight"),
        *(layer + "attention.self.query.weight", layer + "attention.self.key.weight"),
        *(layer + "attention.dense.weight", layer + "mlp.dense_4h_h.weight"),
    ):
        values = torch.ones(16, 16)
        assert not torch.equal(neighbor_start(name, values, 2, 0.02), values)
        assert torch.equal(values, torch.ones(16, 16))
    biases = torch.ones(16)
    for name in ("attention.self.query.bias", "attention.self.value.weight", "input_ln.weight"):
        assert neighbor_start(layer + name, biases, 2, 0.02) is biases


def test_the_configuration_keeps_it(tmp_path: Path) -> None:
    made = config(hidden_size=16, num_attention_heads=2)
    ProteinBertModel(made).save_pretrained(tmp_path)
    assert ProteinBertConfig.from_pretrained(tmp_path).initial_attention == "neighbours"


def test_loading_complete_weights_does_not_compute_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ProteinBertModel(config(hidden_size=16, num_attention_heads=2)).save_pretrained(tmp_path)
    monkeypatch.setattr(modeling_bert, "neighbor_start", None)
    ProteinBertModel.from_pretrained(tmp_path)
    with pytest.raises(TypeError):
        ProteinBertModel(config(hidden_size=16, num_attention_heads=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial_attention": "near"}, "must be one of random, neighbours, half-neighbours, not 'near'"),
        (
            {"initial_attention": "half-neighbours", "num_attention_heads": 1},
            "half-neighbours requires at least 2 heads",
        ),
        ({"num_attention_heads": 1}, "requires at least 2 heads of an even size .*, not 1 of 128"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "not 4 of 3"),
        ({"layer_norm_position": "post"}, "requires layer_norm_position pre"),
    ],
)
def test_an_unsupported_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)
