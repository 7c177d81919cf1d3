"""The model of a run: its initial weights, and which of them are trained."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tape.evaluation.load_model import check_finite, check_vocabulary_size, rows_needed, stored_target
from tape.models.freezing import freeze_encoder
from tape.models.lora import add_lora
from tape.models.model_directory import check_vocabulary
from tape.registry import registry
from tape.tokenizers import TAPETokenizer

from .config import ModelConfig


def build_model(config: ModelConfig, task: str, tokenizer: TAPETokenizer, directory: Path | None) -> nn.Module:
    """The task's model with its initial weights.

    Args:
        config: model type, configuration file and overrides.
        task: a registered task.
        tokenizer: the vocabulary of the data.
        directory: model directory with the initial weights; None: random weights.

    Raises:
        ProteinLMError: it can't be loaded, has weights that are not finite or another vocabulary, or an override does
            not fit it.
    """
    # The weights of classes and the scale of values are those of this run, never of the one that the model is from.
    overrides = {"finetuning_task": task, "class_weights": None, "value_scale": None, **config.overrides}
    target = registry.get_task_spec(task).target
    if target is not None:
        overrides["target"] = target.to_dict()
    elif directory is not None and stored_target(directory) is not None:
        overrides["target"] = None  # that of the model's own task
    if directory is not None:
        check_vocabulary(directory, tokenizer)
    elif tokenizer.name != "iupac" and config.config_file is None:
        overrides.setdefault("vocab_size", rows_needed(tokenizer))
    model: nn.Module = registry.get_task_model(
        config.model_type, task, config.config_file, directory, verify=config.verify, **overrides
    )
    check_vocabulary_size(model, tokenizer)
    if directory is not None:
        check_finite(model, directory)
    return model


def build_trained_model(config: ModelConfig, task: str, tokenizer: TAPETokenizer, directory: Path | None) -> nn.Module:
    """As :func:`build_model`, with the encoder frozen or its training replaced by that of low-rank updates."""
    model = build_model(config, task, tokenizer, directory)
    if config.lora is not None:
        add_lora(model, config.lora)
    if config.freeze:
        freeze_encoder(model)
    return model
