"""``config.json`` of a Hugging Face directory and the model configuration, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from converter.formats.model_files import ModelFiles
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, quoted
from tape.tokenizers import IUPAC_VOCAB

PRE_LN_TYPE, POST_LN_TYPE = "megatron-bert", "bert"
TAPE_SETTINGS = "tape_config"  # our key for settings that transformers' configuration lacks

# transformers' names of activations, some of which denote the same function
_READ_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "swish",
    "swish": "swish",
}
# gelu_pytorch_tanh is the torch function that our model calls
_WRITTEN_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "swish": "silu"}
_TRANSLATED = ("hidden_act", "mlm_hidden_act", "apply_final_ln", "layer_norm_position")
_SAME_NAMES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
)

# transformers' defaults of settings that a config.json may omit
_TRANSFORMERS_DEFAULTS = {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "max_position_embeddings": 512}


def is_huggingface(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is transformers'; TAPE's has no ``model_type``."""
    return "model_type" in values


def read_configuration(files: ModelFiles) -> ProteinBertConfig:
    """The configuration of the TAPE model, which has the rows of TAPE's tokens alone.

    Raises:
        CheckpointError: if the model is of another type, or has a setting that TAPE's model does not support.
    """
    values = files.values
    kind = values["model_type"]
    unconverted = (
        "Other encoders of transformers need no conversion: proteinlm train huggingface TASK --from_pretrained"
        f" {files.directory}"
    )
    if kind not in (PRE_LN_TYPE, POST_LN_TYPE):
        raise CheckpointError(
            f"{files.path}: has model_type {quoted(kind)}; supported are {PRE_LN_TYPE} and {POST_LN_TYPE}."
            f" {unconverted}"
        )
    for name, expected in (("position_embedding_type", "absolute"), ("is_decoder", False), ("pruned_heads", {})):
        if values.get(name, expected) != expected:
            raise CheckpointError(
                f"{files.path}: {name} is {quoted(values[name])}, which TAPE's model does not support. {unconverted}"
            )
    activation = values.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _READ_ACTIVATIONS:
        raise CheckpointError(
            f"{files.path}: hidden_act {quoted(activation)} is not one of {', '.join(_READ_ACTIVATIONS)}. {unconverted}"
        )
    kept = values.get(TAPE_SETTINGS)
    translated = {
        "hidden_act": _READ_ACTIVATIONS[activation],
        "mlm_hidden_act": None,
        "apply_final_ln": True,
        "layer_norm_position": "post" if kind == POST_LN_TYPE else "pre",
    }
    names = vars(ProteinBertConfig())
    settings = {
        name: value
        for group in (_TRANSFORMERS_DEFAULTS, kept if isinstance(kept, dict) else {}, values, translated)
        for name, value in group.items()
        if name in names
    }
    config = files.transformer_config(settings)
    return ProteinBertConfig.from_dict({**config.to_dict(), "vocab_size": len(IUPAC_VOCAB)})


def configuration(config: ProteinBertConfig, has_head: bool, dtype: torch.dtype) -> dict[str, Any]:
    """Content of ``config.json``; settings that transformers lacks are kept under a key of ours."""
    post = config.layer_norm_position == "post"
    name = "Bert" if post else "MegatronBert"
    values = config.to_dict()
    return {
        **{key: values[key] for key in _SAME_NAMES},
        "architectures": [name + ("ForMaskedLM" if has_head else "Model")],
        "model_type": POST_LN_TYPE if post else PRE_LN_TYPE,
        "hidden_act": _WRITTEN_ACTIVATIONS[config.hidden_act],
        "pad_token_id": IUPAC_VOCAB["<pad>"],
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "torch_dtype": str(dtype).removeprefix("torch."),
        TAPE_SETTINGS: {key: value for key, value in values.items() if key not in (*_SAME_NAMES, *_TRANSLATED)},
    }
