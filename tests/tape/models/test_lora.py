"""``--lora RANK``: low-rank updates of the encoder."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

from tape.errors import CheckpointError, ConfigError
from tape.models.lora import adapter_state, add_lora, load_adapter, plain_state
from tape.registry import registry

IDS = torch.tensor([[2, 5, 6, 7, 8, 3]])


@pytest.fixture
def plain(small_config: Path) -> torch.nn.Module:
    torch.manual_seed(1)
    return registry.get_task_model("transformer", "stability", small_config).eval()


def adapted(plain: torch.nn.Module, rank: int = 2, noise: float = 0.1) -> torch.nn.Module:
    """A copy with updates that are not 0."""
    model = copy.deepcopy(plain)
    add_lora(model, rank)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=noise)
    return model.eval()


def test_an_update_starts_as_none_and_alone_is_trained(plain: torch.nn.Module) -> None:
    model = adapted(plain, noise=0.0)
    assert torch.equal(model(IDS)[0], plain(IDS)[0])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    head = {name for name, _ in plain.named_parameters() if name.startswith("predict.")}
    assert head <= trained
    assert {name.split(".lora_")[-1][0] for name in trained - head} == {"A", "B"}
    linear = sum(isinstance(part, torch.nn.Linear) for part in plain.bert.modules())
    assert len(trained - head) == 2 * linear == 2 * 2 * 6
    sizes = {parameter.shape[0] for name, parameter in model.named_parameters() if "lora_A" in name}
    assert sizes == {2}


def test_a_saved_model_is_an_ordinary_one(plain: torch.nn.Module) -> None:
    model = adapted(plain)
    state = plain_state(model)
    assert state.keys() == plain.state_dict().keys()
    name = "bert.encoder.layer.1.attention.self.query"
    layer = model.get_submodule(name)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(state[f"{name}.weight"], plain.state_dict()[f"{name}.weight"] + 2 * b @ a)
    merged = copy.deepcopy(plain)
    merged.load_state_dict(state)
    torch.testing.assert_close(merged(IDS)[0], model(IDS)[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(merged(IDS)[0], plain(IDS)[0])


def test_the_adapter_is_put_back_exactly(plain: torch.nn.Module) -> None:
    model = adapted(plain)
    loaded = copy.deepcopy(plain)
    loaded.load_state_dict(plain_state(model))  # the matrices of a saved epoch hold the update already
    add_lora(loaded, 2)
    load_adapter(loaded, adapter_state(model))
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_another_rank_or_none_is_refused(plain: torch.nn.Module) -> None:
    state = adapter_state(adapted(plain))
    with pytest.raises(CheckpointError, match="--lora RANK"):
        load_adapter(adapted(plain, rank=3), state)
    with pytest.raises(CheckpointError, match="36 tensors of low-rank adapters, this one has 0"):
        load_adapter(plain, {name: value for name, value in state.items() if "bias" not in name})
    load_adapter(plain, None)
    assert adapter_state(plain) == {}


def test_an_update_is_not_wider_than_the_map_it_is_added_to(plain: torch.nn.Module) -> None:
    hidden = plain.config.hidden_size
    with pytest.raises(
        ConfigError, match=rf"--lora {hidden + 1}: .* linear maps has rank {hidden}; give 1 to {hidden}$"
    ):
        add_lora(plain, hidden + 1)
    assert adapter_state(plain) == {}
    assert adapter_state(adapted(plain, rank=hidden))


def test_models_without_linear_maps_and_a_missing_package(
    plain: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"num_hidden_layers": 1, "hidden_size": 8, "head_hidden_size": 8}
    for kind, config in (("onehot", {}), ("lstm", small), ("resnet", small)):  # linear maps in the pooler alone
        with pytest.raises(ConfigError, match="no encoder whose layers are linear maps"):
            add_lora(registry.get_task_model(kind, "stability", **config), 2)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'proteinlm\[lora\]'"):
        add_lora(plain, 2)
