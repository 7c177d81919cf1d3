"""What the converter reads: our sharded checkpoints, Megatron-LM's classic directories, one bare ``.pt`` file.

A source knows its configuration, gives the state dict of a TAPE model through the rule tables, and gives an evaluator
that computes from its own files without those tables, for the parity certificate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.models.modeling_bert import ProteinBertForMaskedLM

from .evaluation import Evaluator, ModelEvaluator
from .mapping import Layout, Mapped, map_proteinlm, token_rows_by_name
from .megatron_layout import TRACKER_NAME, read_megatron_checkpoint
from .megatron_source import MegatronSource
from .options import SourceOptions, flags_for_megatron
from .provenance import as_json, file_hashes

if TYPE_CHECKING:
    from pretrain.checkpointing import FullCheckpoint

SHARDED_METADATA = "metadata.json"


class Source(Protocol):
    """One checkpoint that can be converted."""

    kind: str
    path: Path

    @property
    def config(self) -> ProteinBertConfig:
        """Configuration of the TAPE model."""

    @property
    def has_head(self) -> bool:
        """Whether the masked-language-model head is there."""

    def map(self) -> Mapped:
        """State dict of ``ProteinBertForMaskedLM`` in the source's dtypes."""

    def evaluator(self, rounded_to: torch.dtype | None) -> Evaluator:
        """Computes from the source's own files; with ``rounded_to`` from weights rounded to that dtype first."""

    def provenance(self) -> dict[str, Any]:
        """What is known of the source, as JSON."""


def open_source(path: Path, options: SourceOptions) -> Source:
    """Find out what ``path`` is and read its settings.

    Raises:
        CheckpointError: nothing there that can be read.
        ConfigError: an option contradicts the checkpoint.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    source: Source
    if is_sharded(path):
        source = ShardedSource(path, options)
    else:
        source = MegatronSource(read_megatron_checkpoint(path), options)
    for flag, given, name in (
        ("-hidden", options.hidden_size, "hidden_size"),
        ("-heads", options.heads, "num_attention_heads"),
        ("-layers", options.layers, "num_hidden_layers"),
    ):
        found = getattr(source.config, name)
        if given is not None and given != found:
            raise ConfigError(f"{flag} {given} contradicts {path}, which has {name} {found}")
    return source


def is_sharded(path: Path) -> bool:
    """Whether this is a ``--save`` directory of ours or one of its iterations."""
    if not path.is_dir():
        return False
    return any((folder / SHARDED_METADATA).is_file() for folder in (path, *_tracked(path)))


def _tracked(path: Path) -> list[Path]:
    tracker = path / TRACKER_NAME
    name = tracker.read_text(encoding="utf-8", errors="replace").strip() if tracker.is_file() else ""
    return [path / f"iter_{int(name):07d}"] if name.isdigit() else []


def _gather(path: Path, verify: bool = True) -> FullCheckpoint:
    # imported here: torch.distributed.checkpoint takes more than a second, and Megatron's files don't need it
    from pretrain.checkpointing import load_full_checkpoint

    return load_full_checkpoint(path, verify=verify)


class ShardedSource:
    """A checkpoint of ``pretrain_tape.py``, gathered from any layout. It carries its vocabulary and configuration."""

    kind = "proteinlm-sharded"

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self._checkpoint = _gather(path)
        # From here on the iteration that was read, whatever a running job saves meanwhile.
        self.path = self._checkpoint.path
        self._config = ProteinBertConfig.from_dict(dict(self._checkpoint.model_config))
        self._rows, self._unused = token_rows_by_name(self._checkpoint.vocabulary)
        for flag in flags_for_megatron(options):
            raise ConfigError(f"{flag} is for Megatron checkpoints; {path} states its own settings")

    @property
    def config(self) -> ProteinBertConfig:
        return ProteinBertConfig.from_dict({**self._config.to_dict(), "vocab_size": len(self._rows)})

    @property
    def has_head(self) -> bool:
        return any(key.startswith("mlm.") for key in self._checkpoint.model)

    def map(self) -> Mapped:
        layout = Layout(heads=self._config.num_attention_heads, version=3.0, token_rows=self._rows)
        return map_proteinlm(self._checkpoint.model, layout)

    def evaluator(self, rounded_to: torch.dtype | None) -> Evaluator:
        """The model that was pretrained, loaded anew through the sharded checkpoint."""
        state = _gather(self.path, verify=False).model
        if rounded_to is not None:
            state = {key: value.to(rounded_to) for key, value in state.items()}
        model = ProteinBertForMaskedLM(self._config)
        expected, found = set(model.state_dict()), set(state)
        if expected != found:
            raise CheckpointError(f"{self.path}: {sorted(expected ^ found)[0]} is in the model or the checkpoint only")
        model.load_state_dict(state)
        return ModelEvaluator(model, token_rows=self._rows)

    def provenance(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "path": str(self.path),
            "iteration": self._checkpoint.iteration,
            "arguments": as_json(self._checkpoint.arguments),
            "files": file_hashes(sorted(file for file in self._checkpoint.path.rglob("*") if file.is_file())),
            "unused_tokens": list(self._unused),
        }
