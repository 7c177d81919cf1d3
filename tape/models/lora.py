"""Low-rank adaptation (LoRA, Hu et al. 2021) of an encoder with the package peft: ``--lora RANK``.

Each linear map of the encoder computes ``W x + (alpha / rank) B A x``; only A, B and the head are trained. alpha is
twice the rank, and there is no dropout. Saved models contain the merged weights ``W + (alpha / rank) B A`` under the
usual names, so they can be loaded like any other model. ``checkpoint.bin`` contains W, A and B separately, which
resuming needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tape.errors import CheckpointError, ConfigError, import_extra

from .freezing import encoder_of

ALPHA_OVER_RANK = 2
_ADAPTER = "default"  # peft's name for the only adapter
_BASE = ".base_layer."

StateDict = dict[str, Tensor]


def add_lora(model: nn.Module, rank: int) -> None:
    """Freeze the encoder's weights and add an adapter of ``rank`` to each of its linear maps, in place.

    Raises:
        ConfigError: the encoder has no linear maps except in its pooler (LSTM and ResNet), so its states per residue
            could not be adapted; the rank exceeds the size of a linear map; or peft is not installed.
    """
    encoder = encoder_of(model)
    parts = () if encoder is None else encoder.named_modules()
    maps = {name: part for name, part in parts if isinstance(part, nn.Linear)}
    if encoder is None or all(name.split(".")[0] == "pooler" for name in maps):
        raise ConfigError(f"{type(model).__name__} has no encoder whose layers are linear maps, which --lora adapts")
    most = min(min(part.in_features, part.out_features) for part in maps.values())
    if rank > most:
        raise ConfigError(
            f"--lora {rank}: the narrowest of the encoder's linear maps has rank {most}; give 1 to {most}"
        )
    peft = import_extra("peft", "--lora needs the package peft", "lora")
    config = peft.LoraConfig(
        r=rank, lora_alpha=ALPHA_OVER_RANK * rank, target_modules=[*maps], lora_dropout=0.0, bias="none"
    )
    peft.inject_adapter_in_model(config, encoder)


def _adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Name -> layer of each linear map with an adapter."""
    return {name: part for name, part in model.named_modules() if hasattr(part, "lora_A")}


def plain_state(model: nn.Module) -> StateDict:
    """State dict under the model's usual names, with the adapters merged into the weights."""
    state = dict(model.state_dict())
    for name, layer in _adapted_layers(model).items():
        with torch.no_grad():
            merged = layer.base_layer.weight + layer.get_delta_weight(_ADAPTER)
        for key in [key for key in state if key.startswith(f"{name}.")]:
            value = state.pop(key)
            if _BASE in key:
                state[key.replace(_BASE, ".")] = value
        state[f"{name}.weight"] = merged
    return state


def adapter_state(model: nn.Module) -> StateDict:
    """W, A and B of each linear map with an adapter; empty for a model without adapters."""
    prefixes = tuple(f"{name}." for name in _adapted_layers(model))
    if not prefixes:
        return {}
    return {name: value for name, value in model.state_dict().items() if name.startswith(prefixes)}


def load_adapter(model: nn.Module, state: StateDict | None) -> None:
    """Restore the state that :func:`adapter_state` returned.

    Raises:
        CheckpointError: the state does not match the adapters of this model.
    """
    own = adapter_state(model)
    shapes = {name: value.shape for name, value in (state or {}).items()}
    if shapes != {name: value.shape for name, value in own.items()}:
        raise CheckpointError(
            f"the saved run has {len(shapes)} tensors of low-rank adapters, this one has {len(own)}, or other shapes;"
            " resume with the --lora RANK that the run was started with"
        )
    if state:
        model.load_state_dict(state, strict=False)
