"""The model of a run: its initial weights, and which of them are trained."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tape.evaluation.load_model import check_vocabulary_size, rows_needed
from tape.evaluation.long_proteins import position_limit
from tape.evaluation.windows import WindowedModel
from tape.models.freezing import freeze_encoder
from tape.models.lora import add_lora
from tape.models.model_directory import check_vocabulary
from tape.registry import registry
from tape.tasks import TaskType
from tape.tokenizers import TAPETokenizer

from .config import ModelConfig


def build_model(config: ModelConfig, task: str, directory: Path | None) -> nn.Module:
    """The task's model with its initial weights.

    Args:
        config: model type, configuration file and overrides.
        task: a registered task.
        directory: model directory with the initial weights; None: random weights.

    Raises:
        ProteinLMError: it can't be loaded, has another vocabulary, or an override does not fit it.
    """
    tokenizer = TAPETokenizer(config.tokenizer)
    overrides = {"finetuning_task": task, **config.overrides}
    if directory is not None:
        check_vocabulary(directory, tokenizer)
    elif config.tokenizer != "iupac" and config.config_file is None:
        overrides.setdefault("vocab_size", rows_needed(tokenizer))
    model: nn.Module = registry.get_task_model(
        config.model_type, task, config.config_file, directory, verify=config.verify, **overrides
    )
    check_vocabulary_size(model, tokenizer)
    return model


def choose_trained_weights(config: ModelConfig, model: nn.Module) -> nn.Module:
    """Freeze the encoder, or replace its training by that of low-rank updates, as configured; in place."""
    if config.freeze:
        freeze_encoder(model)
    if config.lora is not None:
        add_lora(model, config.lora)
    return model


def validation_model(policy: str, model: nn.Module, task_type: TaskType) -> nn.Module:
    """The model for validation: under ``--length window`` it reads long proteins in windows."""
    limit = position_limit(model)
    return model if limit is None or policy != "window" else WindowedModel(model, task_type, limit)
