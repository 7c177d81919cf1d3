"""Loading trained models for evaluation and inference."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tape.configs import CONFIG_NAME, ProteinConfig
from tape.errors import CheckpointError, ConfigError, VocabularyMismatchError
from tape.hub.cache import local_model
from tape.io.run_layout import resolve_model_directory
from tape.models.model_directory import UNTRAINED, check_vocabulary, directory_provenance
from tape.registry import TaskSpec, registry
from tape.targets import Target, target_of
from tape.tokenizers import VOCABULARIES, TAPETokenizer

from .config import ModelSource

logger = logging.getLogger(__name__)


def model_directory(source: ModelSource) -> Path:
    """The model directory of a source, downloaded if it is remote."""
    return resolve_model_directory(local_model(source.from_pretrained))


def folder_of(model: Path) -> Path:
    """A model directory itself, or the directory of a weights file."""
    return model if model.is_dir() else model.parent


def stored_target(directory: Path) -> Target | None:
    """The target of a model that was trained on a user's own table; None for other models, and without a config.json.

    Raises:
        ConfigError: ``config.json`` is invalid.
    """
    config = stored_config(directory)
    return None if config is None else target_of(config)


def stored_config(directory: Path) -> ProteinConfig | None:
    """The configuration of a model; None without a config.json.

    Raises:
        ConfigError: it is invalid.
    """
    file = folder_of(directory) / CONFIG_NAME
    return ProteinConfig.from_json_file(file) if file.is_file() else None


def load_finetuned_model(source: ModelSource, spec: TaskSpec, directory: Path) -> nn.Module:
    """A task model with all of its weights. A head with random weights would give meaningless numbers.

    Raises:
        CheckpointError: the directory has no weights for the task's head.
        ProteinLMError: the model can't be loaded, or has another vocabulary.
    """
    tokenizer = TAPETokenizer(source.tokenizer)
    check_vocabulary(directory, tokenizer)
    provenance = directory_provenance(directory)
    model_class = spec.get_model(source.model_type)
    loaded = model_class.from_pretrained(
        directory, num_labels=spec.num_labels, output_loading_info=True, verify=source.verify
    )
    model: nn.Module = loaded[0]
    missing = loaded[1]["missing_keys"]
    if missing:
        raise CheckpointError(
            f"{directory}: has no trained weights of the {spec.name} model: {', '.join(missing[:4])}"
            f"{' ...' if len(missing) > 4 else ''}; finetune it first"
        )
    check_vocabulary_size(model, tokenizer)
    check_finite(model, directory)
    _warn_of_other_training(model, spec.name, directory, provenance)
    return model


def load_encoder(source: ModelSource, directory: Path, **config_overrides: Any) -> nn.Module:
    """The encoder of a model directory, without a task head.

    Raises:
        ProteinLMError: the model can't be loaded, or has another vocabulary.
    """
    tokenizer = TAPETokenizer(source.tokenizer)
    check_vocabulary(directory, tokenizer)
    model: nn.Module = registry.get_task_model(
        source.model_type, "embed", load_dir=directory, verify=source.verify, **config_overrides
    )
    check_vocabulary_size(model, tokenizer)
    check_finite(model, directory)
    return model


def check_finite(model: nn.Module, directory: Path) -> None:
    """Check that all weights are finite numbers; others would give meaningless results for some inputs, or all.

    Raises:
        CheckpointError: a weight is nan or infinite. Names the first tensor.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"{directory}: {count:,} of {tensor.numel():,} weights of {name} are nan or infinite; the model is"
                " damaged, or its training diverged. Use another saved epoch or checkpoint"
            )


def rows_needed(tokenizer: TAPETokenizer) -> int:
    """Embedding rows for every token id (26 for unirep, whose ``vocab_size`` is 29 as in TAPE)."""
    return max(tokenizer.vocab.values()) + 1


def check_vocabulary_size(model: nn.Module, tokenizer: TAPETokenizer) -> None:
    """Check that the model has an embedding row for every token id.

    Raises:
        ConfigError: it has fewer; the message names the vocabulary that fits, if there is one.
        VocabularyMismatchError: its table of ids is for another vocabulary.
    """
    expected = getattr(model.config, "tape_vocabulary", tokenizer.name)
    if expected != tokenizer.name:
        raise VocabularyMismatchError(
            f"{type(model).__name__} translates ids of the {expected} vocabulary; give --tokenizer {expected}"
        )
    size, needed = getattr(model.config, "vocab_size", None), rows_needed(tokenizer)
    if isinstance(size, int) and size < needed:
        fitting = next((name for name in VOCABULARIES if rows_needed(TAPETokenizer(name)) == size), None)
        raise ConfigError(
            f"the model has {size} tokens (vocab_size), but the {tokenizer.name} vocabulary needs {needed}"
            + (f"; its own may be --tokenizer {fitting}" if fitting else "")
        )


def _warn_of_other_training(model: nn.Module, task: str, directory: Path, provenance: dict[str, Any]) -> None:
    """Warn if a head of the right shape was trained on another task, or not at all."""
    trained = getattr(model.config, "finetuning_task", None)
    if trained not in (None, task):
        logger.warning("%s: finetuned on %s, not on %s", directory, trained, task)
    if provenance.get("kind") == UNTRAINED:
        source = provenance.get("initialised_from")
        head = "its head" if source is None else f"a head that {source} lacks"
        logger.warning(
            "%s: saved by --force_save before any training on %s: %s has random weights, so its predictions are"
            " meaningless",
            directory,
            task,
            head,
        )
