"""The check that a checkpoint's arguments describe a model that TAPE's computes.

Some of Megatron-LM's arguments change what a model computes and leave no trace in its tensors, so neither the rule
tables nor the parity certificate could notice them. Every argument must therefore be known: used by
:mod:`converter.formats.megatron.settings`, without effect on the function, or at the value that TAPE's model has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ConfigError

from .argument_names import NEUTRAL_NAMES

# Arguments that the converter uses -> for what
USED_NAMES = {
    "attention_dropout": "the configuration",
    "bias_gelu_fusion": "the form of GELU",
    "encoder_num_layers": "checked against the tensors",
    "ffn_hidden_size": "checked against the tensors",
    "hidden_dropout": "the configuration",
    "hidden_size": "checked against the tensors",
    "init_method_std": "the configuration",
    "kv_channels": "checked against the tensors",
    "layernorm_epsilon": "epsilon of the layer norms",
    "make_vocab_size_divisible_by": "checked against the tensors",
    "max_position_embeddings": "checked against the tensors",
    "norm_epsilon": "epsilon of the layer norms",
    "num_attention_heads": "the order of the query, key and value rows",
    "num_layers": "checked against the tensors",
    "num_tokentypes": "read from the tensors",
    "num_unique_layers": "checked against the tensors",
    "openai_gelu": "the form of GELU",
    "transformer_impl": "the form of GELU",
}


@dataclass(frozen=True)
class Supported:
    """Values of an argument that changes what a model computes.

    Args:
        values: with these it is TAPE's model; None always is, because it means that an option isn't used.
        otherwise: what the model has with other values, for the message.
    """

    values: tuple[object, ...]
    otherwise: str


# TAPE's model has learned absolute positions, pre-layer-norm blocks of full multi-head attention and an FFN with GELU,
# layer norms, biases and tied embeddings. Some names are fields of Megatron Core's TransformerConfig, or options of
# forks.
SUPPORTED_VALUES: dict[str, Supported] = {
    "activation_func": Supported((), "another activation"),
    "activation_func_clamp_value": Supported((), "clamped activations"),
    "add_bias_linear": Supported((True,), "no biases"),
    "add_position_embedding": Supported((True,), "no position embeddings"),
    "apply_layernorm_1p": Supported((False,), "layer norms with weight + 1"),
    "apply_residual_connection_post_layernorm": Supported((False,), "residual connections after the layer norm"),
    "attention_output_gate": Supported((False,), "a gate on the attention output"),
    "bias_activation_fusion": Supported((False,), "the tanh form of GELU; Megatron-LM's option is bias_gelu_fusion"),
    "embed_layernorm": Supported((False,), "a layer norm after the embeddings"),
    "enable_mhc_connections": Supported((False,), "several residual streams"),
    "experimental_attention_variant": Supported((), "another attention"),
    "expert_gtp_weight_remat_size": Supported((1,), "weights sharded over more ranks than the files have"),
    "expert_tensor_parallel_num_weight_shards": Supported((1,), "weights sharded over more ranks than the files have"),
    "gated_linear_unit": Supported((False,), "a gated FFN"),
    "glu_activation": Supported((), "a gated FFN"),
    "glu_linear_offset": Supported((0,), "a gated FFN"),
    "group_query_attention": Supported((False,), "shared keys and values"),
    "gtp_weight_remat_size": Supported((1,), "weights sharded over more ranks than the files have"),
    "heterogeneous_block_specs": Supported((False,), "layers that differ"),
    "heterogeneous_layers_config_encoded_json": Supported((), "layers that differ"),
    "heterogeneous_layers_config_path": Supported((), "layers that differ"),
    "hybrid_attention_ratio": Supported((0,), "state-space layers"),
    "hybrid_layer_pattern": Supported((), "state-space layers"),
    "hybrid_mlp_ratio": Supported((0,), "state-space layers"),
    "hybrid_override_pattern": Supported((), "state-space layers"),
    "is_hybrid_model": Supported((False,), "state-space layers"),
    "kitchen_config_file": Supported((), "quantized arithmetic"),
    "kitchen_recipe_number": Supported((), "quantized arithmetic"),
    "layernorm_zero_centered_gamma": Supported((False,), "layer norms with weight + 1"),
    "linear_attention_freq": Supported((), "linear attention"),
    "model_spec": Supported((), "layers defined elsewhere"),
    "mrope_section": Supported((), "rotary positions"),
    "mtp_hybrid_override_pattern": Supported((), "state-space layers"),
    "mtp_num_layers": Supported((0,), "multi-token prediction"),
    "multi_latent_attention": Supported((False,), "latent attention"),
    "multi_query_attention": Supported((False,), "shared keys and values"),
    "no_rope_freq": Supported((), "rotary positions"),
    "normalization": Supported(("LayerNorm",), "another normalization"),
    "num_experts": Supported((), "experts"),
    "num_moe_experts": Supported((), "experts"),
    "position_embedding_type": Supported(("learned_absolute",), "other positions"),
    "qk_l2_norm": Supported((False,), "normalized queries and keys"),
    "qk_layernorm": Supported((False,), "normalized queries and keys"),
    "quant_recipe": Supported((), "quantized arithmetic"),
    "quick_geglu": Supported((False,), "a gated FFN"),
    "retro_add_retriever": Supported((False,), "retrieval"),
    "softmax_scale": Supported((), "another scale of the attention scores"),
    "softmax_type": Supported(("vanilla",), "another softmax in attention"),
    "spec": Supported((["local"],), "layers defined elsewhere; local is Megatron Core's own"),
    "squared_relu": Supported((False,), "another activation"),
    "swiglu": Supported((False,), "a gated FFN"),
    "tensor_parallel_num_weight_shards": Supported((1,), "weights sharded over more ranks than the files have"),
    "untie_embeddings_and_output_weights": Supported((False,), "an output layer of its own"),
    "use_alibi_position_embeddings": Supported((False,), "other positions"),
    "use_kitchen": Supported((False,), "quantized arithmetic"),
    "use_kitchen_attention": Supported((False,), "quantized arithmetic"),
    "use_mup": Supported((False,), "scaled embeddings, logits and attention scores"),
    "use_rope_scaling": Supported((False,), "rotary positions"),
    "use_rotary_position_embeddings": Supported((False,), "rotary positions"),
    "use_te_activation_func": Supported((False,), "Transformer Engine's activations, whose GELU is the tanh form"),
    "use_transformer_engine_op_fuser": Supported(
        (False,), "Transformer Engine's activations, whose GELU is the tanh form"
    ),
    "window_attn_skip_freq": Supported((), "attention within a window"),
    "window_size": Supported((), "attention within a window"),
}

_OFF: tuple[object, ...] = (None, False, "", (), [], {})  # an option that isn't used


def check_arguments(arguments: Mapping[str, Any], path: Path, assumed: Collection[str]) -> dict[str, Any]:
    """Check every argument of a checkpoint.

    Args:
        arguments: the arguments by name.
        path: the checkpoint, for messages.
        assumed: names given by ``--assume-neutral``.

    Returns:
        The arguments that would have been refused if their names were not in ``assumed``.

    Raises:
        CheckpointError: if arguments have values that TAPE's model does not support, or unknown names.
        ConfigError: if an assumed name is not among the arguments.
    """
    absent = sorted(set(assumed) - arguments.keys())
    if absent:
        raise ConfigError(f"--assume-neutral {absent[0]}: {path} has no such argument")
    unsupported = {name: value for name, value in arguments.items() if not _is_supported(name, value)}
    unknown = {name: value for name, value in arguments.items() if not _is_known(name, value)}
    _refuse(unsupported, assumed, f"{path}: was trained with", "which TAPE's model does not support")
    _refuse(
        unknown,
        assumed,
        f"{path}: its arguments have",
        "which no known version of Megatron-LM has, so the model might compute something else",
    )
    return {name: value for name, value in {**unsupported, **unknown}.items() if name in assumed}


def _is_supported(name: str, value: object) -> bool:
    return name not in SUPPORTED_VALUES or value is None or _is_one_of(value, SUPPORTED_VALUES[name].values)


def _is_known(name: str, value: object) -> bool:
    known = name in SUPPORTED_VALUES or name in USED_NAMES or name in NEUTRAL_NAMES
    return known or _is_one_of(value, _OFF)


def _is_one_of(value: object, allowed: Collection[object]) -> bool:
    plain = (type(None), bool, int, float, str, tuple, list, dict)  # a tensor has no single truth value
    return isinstance(value, plain) and value in allowed


def _refuse(refused: Mapping[str, Any], assumed: Collection[str], start: str, reason: str) -> None:
    rest = {name: value for name, value in sorted(refused.items()) if name not in assumed}
    if rest:
        shown = ", ".join(f"{name} {str(value)[:40]}{_effect(name)}" for name, value in rest.items())
        options = " ".join(f"--assume-neutral {name}" for name in rest)
        raise CheckpointError(
            f"{start} {shown}, {reason}; if it makes no difference in this checkpoint, give {options}"
        )


def _effect(name: str) -> str:
    return f" ({SUPPORTED_VALUES[name].otherwise})" if name in SUPPORTED_VALUES else ""
