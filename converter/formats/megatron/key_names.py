"""Names of tensors in Megatron-LM's checkpoints: every spelling is translated to that of 2020, which the rules use.

- Classic models: ``language_model.transformer.layers.0.attention...``; ``language_model.encoder.layers...`` from 2021.
- Classic models with ``--transformer-impl transformer_engine`` (2022 to 2024): its fused modules ``layernorm_qkv`` and
  ``layernorm_mlp`` contain the layer norms.
- Megatron Core's ``BertModel``: ``encoder.layers.0.self_attention.linear_qkv...``, with layer norms of their own (local
  implementation) or in the linear layers (Transformer Engine).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from converter.mapping.tables import MEGATRON_HEAD_BIAS, MEGATRON_HEAD_WORDS

EXTRA_STATE = "_extra_state"


class Form(Enum):
    """Who computes a model's layers, by the names of its tensors."""

    CLASSIC = "classic"
    TRANSFORMER_ENGINE = "classic, layers of Transformer Engine"
    CORE = "Megatron Core"


# key components that newer releases of Megatron-LM renamed, new -> old
_CLASSIC = (
    ("language_model.encoder.", "language_model.transformer."),
    (".self_attention.layernorm_qkv.layer_norm_", ".input_layernorm."),
    (".self_attention.layernorm_qkv.", ".attention.query_key_value."),
    (".self_attention.proj.", ".attention.dense."),
    (".layernorm_mlp.layer_norm_", ".post_attention_layernorm."),
    (".layernorm_mlp.fc1_", ".mlp.dense_h_to_4h."),
    (".layernorm_mlp.fc2_", ".mlp.dense_4h_to_h."),
    (".self_attention.", ".attention."),
    (".input_norm.", ".input_layernorm."),
    (".post_attention_norm.", ".post_attention_layernorm."),
    (".final_norm.", ".final_layernorm."),
    ("lm_head.norm.", "lm_head.layernorm."),
)
# local implementation of Megatron Core -> spelling of 2020, one to one
_CORE = (
    ("encoder.final_layernorm.", "language_model.transformer.final_layernorm."),
    ("encoder.layers.", "language_model.transformer.layers."),
    ("embedding.", "language_model.embedding."),
    ("pooler.", "language_model.pooler."),
    ("lm_head.layer_norm.", "lm_head.layernorm."),
    ("output_layer.bias", MEGATRON_HEAD_BIAS),
    ("output_layer.weight", MEGATRON_HEAD_WORDS),
)
_CORE_LAYER = (
    (".self_attention.linear_qkv.", ".attention.query_key_value."),
    (".self_attention.linear_proj.", ".attention.dense."),
    (".pre_mlp_layernorm.", ".post_attention_layernorm."),
    (".mlp.linear_fc1.", ".mlp.dense_h_to_4h."),
    (".mlp.linear_fc2.", ".mlp.dense_4h_to_h."),
)
# Transformer Engine's fused layers -> local implementation of Megatron Core
_FUSED = (
    (".self_attention.linear_qkv.layer_norm_", ".input_layernorm."),
    (".mlp.linear_fc1.layer_norm_", ".pre_mlp_layernorm."),
)
# modules of the local implementation that have an extra state (None), which a strict load_state_dict asks for
_WITH_EXTRA_STATE = re.compile(r"(.*\.(?:linear_qkv|linear_proj|linear_fc1|linear_fc2)|output_layer)\.bias")


def form_of(keys: Iterable[str]) -> Form | None:
    """The form of a model dictionary with these complete keys; None if it is no language model of Megatron-LM."""
    keys = list(keys)
    if any(key.startswith("language_model.") for key in keys):
        fused = any(".layernorm_qkv." in key or ".layernorm_mlp." in key for key in keys)
        return Form.TRANSFORMER_ENGINE if fused else Form.CLASSIC
    has_layers = any(key.startswith("encoder.layers.") for key in keys)
    return Form.CORE if has_layers and any("linear_qkv" in key for key in keys) else None


def canonical_name(key: str, form: Form) -> str:
    """The spelling of a key in Megatron-LM of 2020."""
    if form is not Form.CORE:
        return _replaced(key, _CLASSIC)
    start = next(((new, old) for new, old in _CORE if key.startswith(new)), ("", ""))
    return start[1] + _replaced(_replaced(key, _FUSED).removeprefix(start[0]), _CORE_LAYER)


def core_name(key: str) -> str:
    """The key of Megatron Core's local implementation for one in the spelling of 2020."""
    start = next(((new, old) for new, old in _CORE if key.startswith(old)), ("", ""))
    return start[0] + _replaced(key.removeprefix(start[1]), [(old, new) for new, old in _CORE_LAYER])


def extra_state_of(key: str) -> str | None:
    """The key of the extra state of the module of which ``key`` is the bias, if Megatron Core's has one."""
    match = _WITH_EXTRA_STATE.fullmatch(key)
    return f"{match[1]}.{EXTRA_STATE}" if match else None


def _replaced(key: str, names: Iterable[tuple[str, str]]) -> str:
    for new, old in names:
        key = key.replace(new, old)
    return key
