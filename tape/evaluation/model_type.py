"""The model type and the vocabulary of a model directory, which the commands take as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tape.configs import CONFIG_NAME
from tape.errors import CheckpointError, ConfigError, quoted
from tape.hub.cache import no_such_model
from tape.io.json_files import read_json_object
from tape.io.run_layout import ARGUMENTS_NAME
from tape.models.model_directory import VOCABULARY_NAME
from tape.models.modeling_utils import describe_other
from tape.registry import registry
from tape.tokenizers import VOCABULARIES

from .load_model import folder_of

# Settings that only the configuration of one model type has; the first that fits counts.
_SETTINGS = (
    ("huggingface", ("token_ids",)),
    ("transformer", ("num_attention_heads",)),
    ("onehot", ("use_evolutionary",)),
    ("lstm", ("input_size", "num_hidden_layers")),
    ("unirep", ("input_size",)),
    ("resnet", ("num_hidden_layers", "hidden_act")),
)


def model_type_of(model: Path) -> str:
    """The model type of a model directory or weights file.

    It is that of the run's ``args.json``, if the directory is a saved epoch of one, or it follows from ``config.json``.

    Raises:
        CheckpointError: there is no model. Names what there is, such as a pretraining checkpoint and its conversion.
        ConfigError: the configuration is that of no built-in model type.
    """
    config = read_config(model)
    arguments = folder_of(model).parent / ARGUMENTS_NAME
    stated = read_json_object(arguments).get("model_type") if arguments.is_file() else None
    if isinstance(stated, str) and any(stated in spec.models for spec in registry.task_name_mapping.values()):
        return stated
    if "model_type" in config:  # of transformers
        return "huggingface"
    for model_type, names in _SETTINGS:
        if all(name in config for name in names):
            return model_type
    raise ConfigError(f"{folder_of(model) / CONFIG_NAME}: the settings of no built-in model type; give model_type=NAME")


def vocabulary_of(model: Path, model_type: str) -> str:
    """Name of a model's vocabulary: that of its ``vocabulary.json``, else the usual one of its model type.

    Raises:
        ConfigError: it has another one than this library.
    """
    file = folder_of(model) / VOCABULARY_NAME
    if not file.is_file():
        return "unirep" if model_type == "unirep" else "iupac"
    name = read_json_object(file).get("name")
    if name not in VOCABULARIES:
        raise ConfigError(f"{file}: unknown vocabulary {quoted(name)}; there are {', '.join(VOCABULARIES)}")
    return str(name)


def read_config(model: Path) -> Mapping[str, Any]:
    """The values of a model's ``config.json``.

    Raises:
        CheckpointError: there is no model, or the file is damaged.
    """
    if not model.exists():
        raise no_such_model(model)
    file = folder_of(model) / CONFIG_NAME
    if not file.is_file():
        raise CheckpointError(f"{model}: {describe_other(model)}")
    return read_json_object(file)
