"""The check that a checkpoint's arguments describe a model that TAPE's computes.

Some of Megatron-LM's arguments change what a model computes and leave no trace in its tensors, so neither the rule
tables nor the parity certificate could notice them. Every argument must therefore be known: used by
:mod:`converter.formats.megatron.settings`, without effect on the function, or at the value that TAPE's model has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ConfigError

from .argument_names import NEUTRAL_NAMES

# arguments from which the settings are derived, or that are checked against the tensors
USED_NAMES = frozenset(
    {
        "attention_dropout",
        "bias_gelu_fusion",
        "encoder_num_layers",
        "ffn_hidden_size",
        "hidden_dropout",
        "hidden_size",
        "init_method_std",
        "kv_channels",
        "layernorm_epsilon",
        "make_vocab_size_divisible_by",
        "max_position_embeddings",
        "norm_epsilon",
        "num_attention_heads",
        "num_layers",
        "num_tokentypes",
        "num_unique_layers",
        "openai_gelu",
    }
)

# Arguments that change what a model computes -> values with which it is TAPE's model: learned absolute positions,
# pre-layer-norm blocks of full multi-head attention and an FFN with GELU, layer norms, biases, tied embeddings. None
# always means that an option isn't used. Some are fields of Megatron Core's TransformerConfig, or options of forks.
SUPPORTED_VALUES: dict[str, tuple[object, ...]] = {
    "activation_func": (),
    "activation_func_clamp_value": (),
    "add_bias_linear": (True,),
    "add_position_embedding": (True,),
    "apply_layernorm_1p": (False,),
    "apply_residual_connection_post_layernorm": (False,),
    "embed_layernorm": (False,),
    "gated_linear_unit": (False,),
    "glu_activation": (),
    "glu_linear_offset": (0,),
    "group_query_attention": (False,),
    "heterogeneous_layers_config_encoded_json": (),
    "heterogeneous_layers_config_path": (),
    "hybrid_attention_ratio": (0,),
    "hybrid_mlp_ratio": (0,),
    "hybrid_override_pattern": (),
    "is_hybrid_model": (False,),
    "kitchen_config_file": (),
    "kitchen_recipe_number": (),
    "layernorm_zero_centered_gamma": (False,),
    "model_spec": (),
    "mrope_section": (),
    "mtp_num_layers": (0,),
    "multi_latent_attention": (False,),
    "multi_query_attention": (False,),
    "no_rope_freq": (),
    "normalization": ("LayerNorm",),
    "num_experts": (),
    "position_embedding_type": ("learned_absolute",),
    "qk_l2_norm": (False,),
    "qk_layernorm": (False,),
    "quick_geglu": (False,),
    "retro_add_retriever": (False,),
    "softmax_scale": (),
    "softmax_type": ("vanilla",),
    "spec": (),
    "squared_relu": (False,),
    "swiglu": (False,),
    "untie_embeddings_and_output_weights": (False,),
    "use_alibi_position_embeddings": (False,),
    "use_rope_scaling": (False,),
    "use_rotary_position_embeddings": (False,),
    "use_te_activation_func": (False,),
    "window_attn_skip_freq": (),
    "window_size": (),
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
    return name not in SUPPORTED_VALUES or value is None or _is_one_of(value, SUPPORTED_VALUES[name])


def _is_known(name: str, value: object) -> bool:
    known = name in SUPPORTED_VALUES or name in USED_NAMES or name in NEUTRAL_NAMES
    return known or _is_one_of(value, _OFF)


def _is_one_of(value: object, allowed: Collection[object]) -> bool:
    plain = (type(None), bool, int, float, str, tuple, list, dict)  # a tensor has no single truth value
    return isinstance(value, plain) and value in allowed


def _refuse(refused: Mapping[str, Any], assumed: Collection[str], start: str, reason: str) -> None:
    rest = {name: value for name, value in sorted(refused.items()) if name not in assumed}
    if rest:
        shown = ", ".join(f"{name} {str(value)[:40]}" for name, value in rest.items())
        options = " ".join(f"--assume-neutral {name}" for name in rest)
        raise CheckpointError(
            f"{start} {shown}, {reason}; if it makes no difference in this checkpoint, give {options}"
        )
