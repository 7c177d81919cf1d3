"""Reads sharded checkpoints of ``pretrain_tape.py`` of any parallel layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from converter.formats.model_files import as_json, file_hashes
from converter.mapping.rules import (
    Mapped,
    TransformSettings,
    apply_rules,
    as_single_rank,
    check_tied,
    token_rows_by_name,
)
from converter.mapping.tables import (
    DECODER,
    PROTEINLM_DROPS,
    PROTEINLM_POST_RULES,
    PROTEINLM_RULES,
    WORD_EMBEDDINGS,
)
from converter.verify.named_forward import (
    PROTEINLM_NAMES,
    PROTEINLM_POST_NAMES,
    ForwardSettings,
    NamedForward,
    TensorShard,
)
from converter.verify.reference_forward import ReferenceForward
from pretrain.checkpoint_paths import find_checkpoint
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.models.lazy_tensors import LazyTensor

if TYPE_CHECKING:
    from pretrain.checkpointing import StoredShard, StoredTensor


class ShardedSource:
    """A sharded checkpoint, which includes its vocabulary and configuration.

    The conversion gathers tensors by torch.distributed.checkpoint; the reference forward pass computes on the shards.
    """

    kind = "proteinlm-sharded"
    accepts: frozenset[str] = frozenset()
    assumed: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        # imported here, because torch.distributed.checkpoint takes more than a second and other formats don't need it
        from pretrain.checkpointing import model_tensors, read_metadata, verify_files

        found = find_checkpoint(path)
        if found is None:
            raise CheckpointError(f"{path}: no checkpoint found")
        # fixed to this iteration, even if a running job saves another one in the meantime
        self.path = found
        self._metadata = read_metadata(found)
        verify_files(found, self._metadata["files"])
        self._tensors: dict[str, StoredTensor] = model_tensors(found)
        try:
            self._config = ProteinBertConfig.from_dict(dict(self._metadata["model_config"]))
        except ConfigError as error:
            raise ConfigError(f"{found}: {error}") from error
        self._is_post = self._config.layer_norm_position == "post"
        self._rows, self._unused = token_rows_by_name(self._metadata["vocabulary"], found)

    @property
    def config(self) -> ProteinBertConfig:
        return ProteinBertConfig.from_dict({**self._config.to_dict(), "vocab_size": len(self._rows)})

    @property
    def has_head(self) -> bool:
        return any(name.startswith("mlm.") for name in self._tensors)

    def map(self, with_head: bool = True) -> Mapped:
        layout = TransformSettings(self._config.num_attention_heads, 3.0, self._rows)
        state = {name: LazyTensor(entry.shape, entry.dtype, entry.gather) for name, entry in self._tensors.items()}
        shards = as_single_rank(state)
        rules = PROTEINLM_POST_RULES if self._is_post else PROTEINLM_RULES
        mapped = apply_rules(rules, PROTEINLM_DROPS, shards, self._config.num_hidden_layers, layout, self.path)
        if not with_head:
            return mapped.without_head()
        check_tied(shards, DECODER, WORD_EMBEDDINGS, self.path)
        return mapped

    def reference_forward(self, rounded_to: torch.dtype | None) -> ReferenceForward:
        """A forward pass on the ranks' shards of each tensor."""
        settings = ForwardSettings.of(self._config, self._rows)
        parts = {name: tuple(_part(part, entry) for part in entry.shards) for name, entry in self._tensors.items()}
        description = "plain torch on the ranks' shards of each tensor (converter.verify.named_forward)"
        names = PROTEINLM_POST_NAMES if self._is_post else PROTEINLM_NAMES
        return NamedForward(parts, names, settings, description, rounded_to)

    def provenance(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "path": str(self.path),
            "iteration": self._metadata["iteration"],
            "layout": self._metadata.get("layout"),
            "initial_weights": self._metadata.get("initial_weights"),
            "largest_number_of_parts": max(len(entry.shards) for entry in self._tensors.values()),
            "arguments": as_json(self._metadata["arguments"]),
            "files": file_hashes(sorted(file for file in self.path.rglob("*") if file.is_file())),
            "unused_tokens": list(self._unused),
        }


def is_sharded(path: Path) -> bool:
    """Whether this is a ``--save`` directory of ``pretrain_tape.py`` or one of its iterations."""
    try:
        return find_checkpoint(path) is not None
    except CheckpointError:
        return False


def _part(part: StoredShard, entry: StoredTensor) -> TensorShard:
    return TensorShard(part.offsets, LazyTensor(part.sizes, entry.dtype, part.load))
