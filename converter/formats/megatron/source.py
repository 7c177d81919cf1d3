"""Reads Megatron-LM checkpoints; settings come from the tensors, the saved arguments and the options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from converter.formats.model_files import as_json, file_hashes
from converter.mapping.rules import Mapped, Shards, apply_rules, check_tied, token_rows_by_name
from converter.mapping.tables import (
    MEGATRON_DROPS,
    MEGATRON_HEAD_WORDS,
    MEGATRON_RULES,
    MEGATRON_WORDS,
    TOKEN_TYPES,
    WORD_EMBEDDINGS,
)
from converter.mapping.transforms import TransformSettings
from converter.options import MEGATRON_SETTINGS, SourceOptions
from converter.verify.reference_forward import ReferenceForward
from tape.configs import ProteinBertConfig
from tape.models.lazy_tensors import LazyTensor

from .key_names import Form
from .layout import MegatronCheckpoint
from .rank_file import DROPPED_PARTS
from .reference import MegatronForward, MegatronForwardSettings
from .settings import resolve_settings


class MegatronSource:
    """A checkpoint directory of Megatron-LM, or a single file of one, of classic models or of Megatron Core."""

    accepts = MEGATRON_SETTINGS

    def __init__(self, checkpoint: MegatronCheckpoint, options: SourceOptions) -> None:
        self.path = checkpoint.path
        self.kind = "megatron-core" if checkpoint.first.form is Form.CORE else "megatron-classic"
        self._checkpoint = checkpoint
        self._settings = resolve_settings(checkpoint, options)
        self.assumed = self._settings.assumptions(checkpoint.arguments)
        self._rows, self._unused = token_rows_by_name(self._settings.vocabulary, self.path)

    @property
    def config(self) -> ProteinBertConfig:
        return self._settings.config

    @property
    def has_head(self) -> bool:
        return any(key.startswith("lm_head.") for key in self._checkpoint.shards)

    def map(self, with_head: bool = True) -> Mapped:
        config, shards, names = self.config, self._checkpoint.shards, self._checkpoint.first.own_names
        layout = TransformSettings(config.num_attention_heads, self._settings.version, self._rows)
        layers, token_types = config.num_hidden_layers, config.type_vocab_size
        mapped = map_megatron(shards, layers, layout, token_types, self.path, names)
        if not with_head:
            return mapped.without_head()
        check_tied(shards, MEGATRON_HEAD_WORDS, MEGATRON_WORDS, self.path, names)
        return mapped

    def reference_forward(self, rounded_to: torch.dtype | None) -> ReferenceForward:
        """A forward pass that reads the files again and computes rank by rank as Megatron-LM does."""
        config = self.config
        settings = MegatronForwardSettings(
            heads=config.num_attention_heads,
            version=self._settings.version,
            epsilon=config.layer_norm_eps,
            activation=config.hidden_act,
            head_activation=config.mlm_hidden_act or config.hidden_act,
            vocabulary=self._settings.vocabulary,
        )
        self._checkpoint.release()
        return MegatronForward(self._checkpoint, settings, rounded_to)

    def provenance(self) -> dict[str, Any]:
        checkpoint = self._checkpoint
        left = sorted({part for rank in checkpoint.ranks for part in rank.dropped})
        return {
            "kind": self.kind,
            "form": checkpoint.first.form.value,
            "path": str(self.path),
            "iteration": checkpoint.first.iteration,
            "checkpoint_version": self._settings.version,
            "tensor_parallel": checkpoint.tensor_parallel,
            "pipeline_parallel": len(checkpoint.stages),
            "dtypes": sorted({str(tensor.dtype) for rank in checkpoint.ranks for tensor in rank.tensors.values()}),
            "arguments": as_json(checkpoint.arguments),
            "assumed_neutral": as_json(self._settings.assumed_neutral),
            "settings_from": self._settings.origin,
            "files": file_hashes(checkpoint.files or [rank.path for rank in checkpoint.ranks]),
            "extra_states_not_read": sum(rank.extra_states for rank in checkpoint.ranks),
            "left_behind": {part: DROPPED_PARTS[part] for part in left},
            "unused_tokens": list(self._unused),
        }


def map_megatron(
    shards: Mapping[str, Shards],
    layers: int,
    layout: TransformSettings,
    token_types: int,
    path: Path,
    own_names: Mapping[str, str] | None = None,
) -> Mapped:
    """The state dict of ``ProteinBertForMaskedLM``, or of its encoder if the source has no LM head."""
    mapped = apply_rules(MEGATRON_RULES, MEGATRON_DROPS, shards, layers, layout, path, own_names)
    if TOKEN_TYPES in mapped.state:
        return mapped
    word = mapped.state[WORD_EMBEDDINGS]
    shape, dtype = (token_types, word.shape[1]), word.dtype
    types = LazyTensor(shape, dtype, lambda: torch.zeros(shape, dtype=dtype))
    filled = {TOKEN_TYPES: "zeros: the source was trained without token types"}
    return Mapped({**mapped.state, TOKEN_TYPES: types}, mapped.dropped, filled)
