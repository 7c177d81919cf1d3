"""Initial weights depend on the seed and the name of the parameter, not on the layout."""

from __future__ import annotations

import pytest
import torch

from pretrain.parallel import ParallelContext, ParallelDims
from pretrain.train.initialization import InitConfig, build_model, initial_values
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.models.neighbor_attention import neighbor_start

CPU = torch.device("cpu")
ALONE = ParallelContext(ParallelDims(), 0, CPU, None)


def config(layers: int = 2) -> ProteinBertConfig:
    return ProteinBertConfig(
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=32,
        type_vocab_size=1,
    )


def test_values_depend_on_seed_and_name_only() -> None:
    torch.manual_seed(1)
    first = build_model(config(), InitConfig(), ALONE).state_dict()
    torch.manual_seed(2)
    second = build_model(config(layers=3), InitConfig(), ALONE).state_dict()
    other = build_model(config(), InitConfig(seed=99), ALONE).state_dict()
    for name, value in first.items():
        if not name.endswith(("attention.dense.weight", "mlp.dense_4h_h.weight")):  # scaled by depth
            assert torch.equal(value, second[name])
        if value.dim() == 2:
            assert not torch.equal(value, other[name])


def test_standard_deviations_follow_megatrons_initialization() -> None:
    state = build_model(config(), InitConfig(std=0.02), ALONE).state_dict()
    layer = "bert.encoder.layer.1."
    assert state[layer + "attention.self.query.weight"].std() == pytest.approx(0.02, rel=0.05)
    for name in ("attention.dense.weight", "mlp.dense_4h_h.weight"):
        assert state[layer + name].std() == pytest.approx(0.02 / 2, rel=0.05)  # sqrt(2 x 2 layers) = 2
    assert state["mlm.transform.dense.weight"].std() == pytest.approx(0.02, rel=0.05)
    for name, value in state.items():
        if name.endswith("bias"):
            assert not value.any()
        elif value.dim() == 1:
            assert (value == 1).all()


def _tied(name: str) -> str:
    return name.replace("mlm.decoder", "word_embeddings")


@pytest.mark.parametrize("kind", ["neighbours", "half-neighbours"])
def test_neighbor_attention_is_initialized_as_in_tape(kind: str) -> None:
    neighbors = ProteinBertConfig.from_dict({**config().to_dict(), "initial_attention": kind})
    plain = build_model(config(), InitConfig(std=0.03), ALONE).state_dict()
    initialized = build_model(neighbors, InitConfig(std=0.03), ALONE).state_dict()
    for name, value in initialized.items():
        assert torch.equal(value, neighbor_start(_tied(name), plain[name], 4, 0.03, kind))
    positions = "bert.embeddings.position_embeddings.weight"
    assert not torch.equal(initialized[positions], plain[positions])
    tape = ProteinBertForMaskedLM(ProteinBertConfig.from_dict({**neighbors.to_dict(), "initializer_range": 0.03}))
    assert torch.equal(initialized[positions], tape.state_dict()[positions])


def test_tied_weights_stay_tied() -> None:
    model = build_model(config(), InitConfig(), ALONE)
    assert model.mlm.decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_each_parameter_has_its_own_random_stream() -> None:
    init = InitConfig()
    shape = torch.Size([64, 64])
    assert not torch.equal(initial_values("a.weight", shape, 2, init), initial_values("b.weight", shape, 2, init))


def test_a_layout_that_cannot_split_the_heads_is_refused() -> None:
    with pytest.raises(ConfigError, match="attention heads"):
        ParallelDims(8, 8).check_model(config())
