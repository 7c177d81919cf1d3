"""Models that predict contacts of unlabeled proteins: a finetuned contact head, or a regression on attention maps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tape.errors import CheckpointError, ConfigError, quoted
from tape.evaluation.config import ModelSource
from tape.evaluation.load_model import folder_of, load_encoder, load_finetuned_model, stored_config
from tape.evaluation.results import model_hash
from tape.io.run_layout import REGRESSION_NAME
from tape.registry import TaskSpec, registry
from tape.targets import target_of
from tape.tasks import TaskType

from .attention_contacts import attention_features
from .contact_regression import ContactRegression, read_regression

CONTACT_TASK = "contact_prediction"
_WITH_ATTENTION_MAPS = ("transformer", "huggingface")

logger = logging.getLogger(__name__)


class AttentionContactModel(nn.Module):
    """An encoder with a fitted regression in the place of a contact head. For inference only.

    Args:
        encoder: an encoder with ``output_attentions``.
        regression: fitted to its maps.
    """

    def __init__(self, encoder: nn.Module, regression: ContactRegression) -> None:
        super().__init__()
        self.encoder, self.regression = encoder, regression
        self.config = encoder.config

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None, **_: Any) -> tuple[Tensor]:
        """Logits of contacts, as of a contact head.

        Args:
            input_ids: (B, L + 2).
            input_mask: (B, L + 2), 0 at padding; None: no padding.

        Returns:
            (B, L, L, 2), 0 at padding.

        Raises:
            CheckpointError: the regression is of a model with another number of attention heads.
        """
        length = input_ids.shape[1] - 2
        logits = torch.zeros((len(input_ids), length, length, 2), device=input_ids.device)
        tokens = [length + 2] * len(input_ids) if input_mask is None else (input_mask != 0).sum(1).tolist()
        for row, count in enumerate(tokens):  # one by one, as for the fit, since maps take L x L numbers per head
            features = attention_features(self.encoder, input_ids[row, :count].cpu().numpy(), input_ids.device)
            if features.shape[-1] != len(self.regression.weights):
                raise CheckpointError(
                    f"the regression of contacts has {len(self.regression.weights)} weights, but the model has"
                    f" {features.shape[-1]} attention heads; fit it again with tape-contacts"
                )
            logits[row, : count - 2, : count - 2, 1] = torch.from_numpy(self.regression.scores(features))
        return (logits,)


def load_attention_encoder(source: ModelSource, directory: Path) -> nn.Module:
    """The encoder of a model directory, with its attention maps as outputs.

    Raises:
        ConfigError: models of this type have no attention maps.
        ProteinLMError: the model can't be loaded.
    """
    if source.model_type not in _WITH_ATTENTION_MAPS:
        raise ConfigError(
            f"model type {quoted(source.model_type)} has no attention maps; only"
            f" {' and '.join(_WITH_ATTENTION_MAPS)} have them"
        )
    return load_encoder(source, directory, output_attentions=True)


def load_contact_model(source: ModelSource, directory: Path, regression: Path | None = None) -> nn.Module:
    """A model with the signature of a contact prediction model.

    Args:
        source: the model.
        directory: its directory.
        regression: file of a regression; None: the head of a model finetuned on contact prediction, or else the
            regression that ``tape-contacts`` has kept in the directory.

    Raises:
        ConfigError: there is neither a head nor a regression. Names the command that fits one.
        ProteinLMError: model or regression can't be loaded.
    """
    folder = folder_of(directory)
    spec = None if regression is not None else _finetuned_task(folder)
    if spec is not None:
        logger.info("contacts by the head of %s", directory)
        return load_finetuned_model(source, spec, directory)
    file = regression or folder / REGRESSION_NAME
    if not file.is_file():
        nothing = f"{directory}: has neither a head for contacts nor a regression on its attention maps"
        where = nothing if regression is None else f"{file}: no such file"
        raise ConfigError(
            f"{where}; fit one on proteins with known structure, `tape-contacts {source.model_type}"
            f" {source.from_pretrained} --data_dir DATA`, which keeps it with the model (of a downloaded or bundled"
            f" one, give its regression.json as --regression), or finetune the model on {CONTACT_TASK}"
        )
    fitted = read_regression(file, model_hash(folder), verify=source.verify)
    encoder = load_attention_encoder(source, directory)
    logger.info("contacts by the regression %s, fitted on %d proteins", file, len(fitted.proteins))
    return AttentionContactModel(encoder, fitted)


def _finetuned_task(directory: Path) -> TaskSpec | None:
    """The task of contacts that a model was finetuned on, if any; registers that of a user's own structures."""
    config = stored_config(directory)
    if config is None or registry.finetuned_task_type(config) != TaskType.RESIDUE_PAIR:
        return None
    target = target_of(config)
    return registry.get_task_spec(config.finetuning_task) if target is None else registry.register_target(target)
