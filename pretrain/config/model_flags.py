"""The flags of the model. What is left out is that of the model which the run starts from or resumes, if any."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tape.cli.types import fraction, positive_float, positive_int
from tape.configs import INITIAL_ATTENTION, ProteinBertConfig
from tape.errors import ConfigError, UsageError
from tape.tokenizers import TAPETokenizer

_DEFAULT_EPSILON = 1e-5
_DEFAULT_STD = 0.02
_DEFAULT_ATTENTION = "random"
_REQUIRED = ("num_layers", "hidden_size", "num_attention_heads", "max_position_embeddings")
# option -> field of the configuration
_FIELDS = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "ffn_hidden_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "layernorm_epsilon": "layer_norm_eps",
}
# fields without a flag, which only a model to start from can have at another value than Megatron-LM's
_INHERITED = ("mlm_hidden_act", "type_vocab_size", "apply_final_ln", "layer_norm_position")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a parser."""
    group = parser.add_argument_group(
        "model",
        "required for a new model: --num-layers, --hidden-size, --num-attention-heads and --max-position-embeddings."
        " Otherwise what is left out is that of the model to start from or to resume",
    )
    group.add_argument("--num-layers", type=positive_int, help="transformer blocks")
    group.add_argument("--hidden-size", type=positive_int, help="width of the residual stream")
    group.add_argument(
        "--num-attention-heads",
        type=positive_int,
        help="must divide --hidden-size and be divisible by --tensor-model-parallel-size",
    )
    group.add_argument("--ffn-hidden-size", type=positive_int, help="width of the MLP (default: 4 x --hidden-size)")
    group.add_argument(
        "--max-position-embeddings",
        type=positive_int,
        help="size of the position embedding table, at least --seq-length",
    )
    group.add_argument(
        "--resize-positions",
        action="store_true",
        help="give the model to start from the number of positions of --max-position-embeddings: a longer table repeats"
        " the given one from its beginning, a shorter one is its beginning",
    )
    group.add_argument("--attention-dropout", type=fraction, default=0.1, help="dropout of attention probabilities")
    group.add_argument(
        "--hidden-dropout", type=fraction, default=0.1, help="dropout after embeddings, attention and MLP"
    )
    group.add_argument(
        "--layernorm-epsilon", type=positive_float, help=f"epsilon of every layer norm (default: {_DEFAULT_EPSILON})"
    )
    group.add_argument(
        "--init-method-std",
        type=positive_float,
        help="standard deviation of initial weights; output projections use it divided by sqrt(2 x --num-layers)"
        f" (default: {_DEFAULT_STD})",
    )
    group.add_argument(
        "--initial-attention",
        choices=INITIAL_ATTENTION,
        help="neighbours: attention heads start out attending to nearby residues, which small models do not learn"
        " within millions of tokens; half-neighbours: half of the heads, which still do so after pretraining; see"
        f" tape/models/neighbor_attention.py (default: {_DEFAULT_ATTENTION})",
    )
    group.add_argument(
        "--no-bias-gelu-fusion", action="store_true", help="use the erf form of GELU instead of the tanh approximation"
    )


def check_model_flags(options: Mapping[str, Any], config: ProteinBertConfig, path: Path) -> None:
    """Compare the flags with the model to start from.

    Args:
        options: the values of all flags by name; None: not given.
        config: the model's configuration.
        path: the model, for messages.

    Raises:
        ConfigError: a flag contradicts it. Names both values.
    """
    for name, field in _FIELDS.items():
        given, found = options[name], getattr(config, field)
        if given is None or given == found or (name == "max_position_embeddings" and options["resize_positions"]):
            continue
        remedy = "; --resize-positions changes it" if name == "max_position_embeddings" else ""
        raise ConfigError(f"--{name.replace('_', '-')} {given} contradicts {path}, which has {field} {found}{remedy}")
    if options["no_bias_gelu_fusion"] and config.hidden_act != "gelu":
        raise ConfigError(
            f"--no-bias-gelu-fusion requests hidden_act gelu, which contradicts {path}: it has {config.hidden_act}"
        )
    if options["initial_attention"] not in (None, config.initial_attention):
        raise ConfigError(
            f"--initial-attention {options['initial_attention']} is for new weights; those of {path} began with"
            f" {config.initial_attention}"
        )
    length, positions = options["seq_length"], options["max_position_embeddings"] or config.max_position_embeddings
    if length > positions:
        raise ConfigError(
            f"--seq-length {length} exceeds the {positions} positions of {path}: lower it, or give"
            f" --max-position-embeddings {length} --resize-positions"
        )


def with_model_of(options: Mapping[str, Any], config: ProteinBertConfig | None) -> dict[str, Any]:
    """The values of all flags, with those of the model that were not given.

    Args:
        options: the values of all flags by name; None: not given.
        config: the model that the run starts from or resumes; None: a new model.

    Raises:
        UsageError: there is no such model, and a required flag is missing.
        ConfigError: the initial attention is not that of the model.
    """
    if config is None:
        missing = [f"--{name.replace('_', '-')}" for name in _REQUIRED if options[name] is None]
        if missing:
            raise UsageError(f"the following arguments are required: {', '.join(missing)} (see --help)")
        return {
            **options,
            "layernorm_epsilon": options["layernorm_epsilon"] or _DEFAULT_EPSILON,
            "init_method_std": options["init_method_std"] or _DEFAULT_STD,
            "initial_attention": options["initial_attention"] or _DEFAULT_ATTENTION,
        }
    found = {name: getattr(config, field) for name, field in _FIELDS.items()}
    if found["ffn_hidden_size"] == 4 * config.hidden_size:  # the default, which is recorded as such
        found["ffn_hidden_size"] = None
    if options["initial_attention"] not in (None, config.initial_attention):
        raise ConfigError(
            f"--initial-attention {options['initial_attention']} contradicts the model to resume, which began with"
            f" {config.initial_attention}"
        )
    completed = {name: found[name] if options[name] is None else options[name] for name in _FIELDS}
    return {
        **options,
        **completed,
        "init_method_std": options["init_method_std"] or config.initializer_range,
        "initial_attention": config.initial_attention,
        "no_bias_gelu_fusion": options["no_bias_gelu_fusion"] or config.hidden_act == "gelu",
    }


def model_config(options: Mapping[str, Any], config: ProteinBertConfig | None) -> ProteinBertConfig:
    """The configuration of the model.

    Args:
        options: from :func:`with_model_of`.
        config: the model that the run starts from or resumes, which has settings without flags; None: a new model.
    """
    # Megatron-LM fuses bias and tanh GELU in the blocks only; its head computes erf GELU
    inherited: dict[str, Any] = {"mlm_hidden_act": "gelu", "type_vocab_size": 1}
    hidden_act = "gelu" if options["no_bias_gelu_fusion"] else "gelu_tanh"
    if config is not None:
        inherited = {name: getattr(config, name) for name in _INHERITED}
        hidden_act = hidden_act if options["no_bias_gelu_fusion"] else config.hidden_act
    return ProteinBertConfig(
        vocab_size=TAPETokenizer().vocab_size,
        hidden_size=options["hidden_size"],
        num_hidden_layers=options["num_layers"],
        num_attention_heads=options["num_attention_heads"],
        intermediate_size=options["ffn_hidden_size"] or 4 * options["hidden_size"],
        hidden_act=hidden_act,
        hidden_dropout_prob=options["hidden_dropout"],
        attention_probs_dropout_prob=options["attention_dropout"],
        max_position_embeddings=options["max_position_embeddings"],
        initializer_range=options["init_method_std"],
        initial_attention=options["initial_attention"],
        layer_norm_eps=options["layernorm_epsilon"],
        **inherited,
    )
