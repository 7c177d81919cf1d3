"""Writes the weights of a model as a checkpoint from which ``pretrain_tape.py`` starts at iteration 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.lazy_tensors import LazyState

DIRECTORY = "iter_0000000"


@dataclass(frozen=True)
class ShardedTarget:
    """A checkpoint of pretraining without optimizer state."""

    def check(self, config: ProteinBertConfig, has_head: bool) -> None:
        """Make sure that pretraining supports the model.

        Raises:
            ConfigError: if it does not; the message gives the reason.
        """
        if config.pruned_heads:
            raise ConfigError("--to pretraining: attention heads were pruned, which pretraining does not support")

    def write(self, folder: Path, state: LazyState, config: ProteinBertConfig, source: Mapping[str, Any]) -> None:
        """Write the checkpoint of iteration 0, and the pointer to it. Holds all weights in memory."""
        # imported here, because torch.distributed.checkpoint takes more than a second and other formats don't need it
        from pretrain.checkpointing import save_weights

        origin = {"path": str(source["path"]), "format": str(source["kind"])}
        save_weights(folder, {name: tensor.load() for name, tensor in state.items()}, config.to_dict(), origin)
