"""Encoders of ``transformers`` (ESM-2, ProtBert, MegatronBert, ...) with TAPE's heads: model type ``huggingface``.

The data have TAPE's ids, which a table translates to those of the encoder's own tokenizer. All computations of the
encoder and of its masked-language-model head are those of ``transformers``. Saved models contain the configuration and
the table, so the directory that they were loaded from is not needed again.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tape.configs import CONFIG_NAME, ProteinConfig
from tape.errors import CheckpointError, ConfigError, quoted
from tape.hub.cache import local_model
from tape.io.json_files import read_json_object
from tape.io.run_layout import resolve_model_directory
from tape.tokenizers import IUPAC_VOCAB

from . import task_models
from .heads import masked_cross_entropy
from .huggingface_config import (
    HuggingFaceConfig,
    build_encoder,
    build_masked_lm,
    is_of_transformers,
    transformers_config,
    without_unused_parts,
)
from .huggingface_tokens import import_transformers, replaced_residues
from .input_checks import check_inputs
from .model_directory import BIN_NAME, SAFETENSORS_NAME, StateDict, load_state_dict
from .modeling_utils import ProteinModel

logger = logging.getLogger(__name__)


class ProteinHuggingFaceAbstractModel(ProteinModel):
    """Base class of these models."""

    config_class = HuggingFaceConfig
    config: HuggingFaceConfig
    base_model_prefix = "huggingface"

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        config: ProteinConfig | None = None,
        state_dict: StateDict | None = None,
        output_loading_info: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        verify: bool = True,
        **overrides: Any,
    ) -> Any:
        """As :meth:`ProteinModel.from_pretrained`, also of a directory that ``transformers`` has written.

        Its weights are read by :mod:`tape.models.model_directory`, so that an untrusted file can't run code.
        """
        path = resolve_model_directory(local_model(pretrained_model_name_or_path, cache_dir, force_download))
        file = (path if path.is_dir() else path.parent) / CONFIG_NAME
        if file.is_file() and is_of_transformers(read_json_object(file)):
            if config is None:
                config = cls.config_class.from_pretrained(file, **overrides)
            assert isinstance(config, HuggingFaceConfig)
            _log_replaced(config, file.parent)
            state = load_sharded_state(path, verify=verify) if state_dict is None else state_dict
            state_dict = _with_our_prefix(state, config)
        return super().from_pretrained(
            path, config, state_dict, output_loading_info, cache_dir, force_download, verify, **overrides
        )

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Embedding:
        raise ConfigError("the tokens of an encoder of transformers are those of its tokenizer; they can't be resized")


class ProteinHuggingFaceModel(ProteinHuggingFaceAbstractModel):
    """The encoder: maps token ids to a state per token.

    Args:
        config: the configuration.
        encoder: the module of ``transformers``; None builds one with random weights.

    Raises:
        ConfigError: an id of the table has no embedding.
    """

    token_ids: Tensor

    def __init__(self, config: HuggingFaceConfig, encoder: Any = None) -> None:
        super().__init__(config)
        if encoder is None:
            encoder = build_encoder(transformers_config(config.encoder), config.output_attentions)
        self.encoder = encoder
        rows, highest = encoder.get_input_embeddings().num_embeddings, max(config.token_ids.values())
        if highest >= rows:
            raise ConfigError(f"the tokenizer has the token id {highest}, but the model has only {rows} embeddings")
        ids = [config.token_ids.get(token, config.token_ids["<unk>"]) for token in IUPAC_VOCAB]
        self.register_buffer("token_ids", torch.tensor(ids), persistent=False)
        self.state_size = self.pooled_size = config.hidden_size

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None) -> tuple[Any, ...]:
        """Encode proteins.

        Args:
            input_ids: (B, S) TAPE's token ids, with ``<cls>`` first.
            input_mask: (B, S), nonzero at real tokens; None means no padding.

        Returns:
            (states (B, S, H), pooled (B, H)[, all states][, all attention maps]). ``pooled`` is the state of the first
            token; poolers of ``transformers`` are not used.

        Raises:
            ConfigError: a protein is longer than the position table, or see
                :func:`tape.models.input_checks.check_inputs`.
        """
        check_inputs(input_ids, input_mask, len(IUPAC_VOCAB))
        limit = getattr(self.config, "max_position_embeddings", None)
        if limit is not None and input_ids.shape[1] > limit:
            raise ConfigError(f"{input_ids.shape[1]} tokens exceed the {limit} positions of the model")
        mask = torch.ones_like(input_ids) if input_mask is None else (input_mask != 0).long()
        output = self.encoder(
            input_ids=self.token_ids[input_ids],
            attention_mask=mask,
            output_hidden_states=self.config.output_hidden_states,
            output_attentions=self.config.output_attentions,
            return_dict=True,
        )
        states = output.last_hidden_state
        outputs: tuple[Any, ...] = (states, states[:, 0])
        if self.config.output_hidden_states:
            outputs += (tuple(output.hidden_states),)
        if self.config.output_attentions:
            outputs += (tuple(output.attentions),)
        return outputs


class ProteinHuggingFaceForMaskedLM(ProteinHuggingFaceAbstractModel):
    """Masked language model with the head of ``transformers``, which keeps its name (``cls``, ``lm_head``).

    Its logits are those of TAPE's tokens; residues that share a token of the encoder have equal logits.

    Raises:
        ConfigError: the tokenizer has no mask token, or the head has several parts.
    """

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__(config)
        if "<mask>" not in config.token_ids:
            raise ConfigError("the tokenizer has no mask token, which a masked language model needs")
        whole = build_masked_lm(transformers_config(config.encoder), config.output_attentions)
        heads = {name: part for name, part in whole.named_children() if part is not whole.base_model}
        if len(heads) != 1:
            raise ConfigError(
                f"the language-model head of {type(whole).__name__} has the parts {quoted(sorted(heads))}; heads of one"
                " part are supported, such as those of bert, esm and megatron-bert"
            )
        self.huggingface = ProteinHuggingFaceModel(config, without_unused_parts(whole.base_model))
        (self.head_name,) = heads
        self.add_module(self.head_name, heads[self.head_name])

    def mlm_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of TAPE's tokens from states (..., H)."""
        logits: Tensor = getattr(self, self.head_name)(hidden)
        return logits[..., self.huggingface.token_ids]

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        """Return ``(logits, ...)``, or ``((loss, {}), logits, ...)`` with the mean loss over targets from 0 on."""
        states, _, *others = self.huggingface(input_ids, input_mask)
        outputs = (self.mlm_logits(states), *others)
        return outputs if targets is None else ((masked_cross_entropy(outputs[0], targets), {}), *outputs)


class ProteinHuggingFaceForValuePrediction(task_models.ForValuePrediction, ProteinHuggingFaceAbstractModel):
    encoder_class = ProteinHuggingFaceModel


class ProteinHuggingFaceForSequenceClassification(
    task_models.ForSequenceClassification, ProteinHuggingFaceAbstractModel
):
    encoder_class = ProteinHuggingFaceModel


class ProteinHuggingFaceForSequenceToSequenceClassification(
    task_models.ForSequenceToSequenceClassification, ProteinHuggingFaceAbstractModel
):
    encoder_class = ProteinHuggingFaceModel


class ProteinHuggingFaceForContactPrediction(task_models.ForContactPrediction, ProteinHuggingFaceAbstractModel):
    encoder_class = ProteinHuggingFaceModel


def load_sharded_state(path: Path, *, verify: bool = True) -> StateDict:
    """Load the state dict of a directory of ``transformers``, which may divide it into several files by an index.

    Raises:
        CheckpointError: there are no weights, the index or a file is damaged, or an entry is not a tensor.
    """
    if not path.is_dir() or any((path / name).is_file() for name in (SAFETENSORS_NAME, BIN_NAME)):
        return load_state_dict(path, verify=verify)
    indexes = [path / f"{name}.index.json" for name in (SAFETENSORS_NAME, BIN_NAME)]
    index = next((file for file in indexes if file.is_file()), None)
    if index is None:
        return load_state_dict(path, verify=verify)  # raises the error
    names = read_json_object(index).get("weight_map")
    if not isinstance(names, dict):
        raise CheckpointError(f"{index}: has no weight_map, the file of each weight")
    state: StateDict = {}
    for name in sorted(set(map(str, names.values()))):
        if Path(name).name != name:
            raise CheckpointError(f"{index}: names {quoted(name)}, which is not a file of its directory")
        state.update(load_state_dict(path / name, verify=verify))
    return state


def _with_our_prefix(state: StateDict, config: HuggingFaceConfig) -> StateDict:
    """The weights of an encoder or of a model with a head under this module's names; heads keep theirs."""
    model_class = import_transformers().MODEL_MAPPING[type(transformers_config(config.encoder))]
    theirs, ours = f"{model_class.base_model_prefix}.", "huggingface.encoder."
    if not any(name.startswith(theirs) for name in state):  # of the encoder alone
        return {ours + name: value for name, value in state.items()}
    return {
        ours + name.removeprefix(theirs) if name.startswith(theirs) else name: value for name, value in state.items()
    }


def _log_replaced(config: HuggingFaceConfig, directory: Path) -> None:
    replaced = replaced_residues(config.token_ids)
    if replaced:
        logger.warning(
            "%s: has no token for %s, which it reads as %s",
            directory,
            ", ".join(replaced),
            "X" if config.token_ids["X"] != config.token_ids["<unk>"] else "its unknown token",
        )
