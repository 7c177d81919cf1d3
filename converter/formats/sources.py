"""Every form that a model may be in, and how it is told which one lies somewhere.

A source knows its configuration, gives the state dict of a TAPE model through the rule tables, and gives an evaluator
that computes from its own files without those tables, for the parity certificate. Results are opened as sources too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from converter.formats.huggingface.source import HuggingFaceSource, is_huggingface
from converter.formats.megatron.layout import TRACKER_NAME, read_megatron_checkpoint
from converter.formats.megatron.source import MegatronSource
from converter.formats.sharded.source import ShardedSource
from converter.formats.tape.source import TapeSource
from converter.mapping.rules import Mapped
from converter.options import SourceOptions
from converter.verify.reference_forward import ReferenceForward
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError

from .model_files import is_model_directory, read_model_files

SHARDED_METADATA = "metadata.json"
SHORTEST = 3  # positions of a protein of one residue


class Source(Protocol):
    """One model in one form.

    Attributes:
        kind: the form's name.
        path: where it lies.
    """

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

    def evaluator(self, rounded_to: torch.dtype | None) -> ReferenceForward:
        """Computes from the source's own files; with ``rounded_to`` from weights rounded to that dtype first."""

    def provenance(self) -> dict[str, Any]:
        """What is known of the source, as JSON."""


def open_source(path: Path, options: SourceOptions) -> Source:
    """Find out what ``path`` is and read its settings.

    Raises:
        CheckpointError: nothing there that can be read.
        ConfigError: an option contradicts the checkpoint, or no protein fits in its positions.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    source = _open(path, options)
    for flag, given, name in (
        ("-hidden", options.hidden_size, "hidden_size"),
        ("-heads", options.heads, "num_attention_heads"),
        ("-layers", options.layers, "num_hidden_layers"),
    ):
        found = getattr(source.config, name)
        if given is not None and given != found:
            raise ConfigError(f"{flag} {given} contradicts {path}, which has {name} {found}")
    if source.config.max_position_embeddings < SHORTEST:
        raise ConfigError(
            f"{path}: has {source.config.max_position_embeddings} positions; <cls>, a residue and <sep> need {SHORTEST}"
        )
    return source


def _open(path: Path, options: SourceOptions) -> Source:
    if is_sharded(path):
        return ShardedSource(path, options)
    if not is_model_directory(path):
        return MegatronSource(read_megatron_checkpoint(path), options)
    files = read_model_files(path)
    return HuggingFaceSource(files, options) if is_huggingface(files.values) else TapeSource(files, options)


def is_sharded(path: Path) -> bool:
    """Whether this is a ``--save`` directory of ours or one of its iterations."""
    if not path.is_dir():
        return False
    return any((folder / SHARDED_METADATA).is_file() for folder in (path, *_tracked(path)))


def _tracked(path: Path) -> list[Path]:
    tracker = path / TRACKER_NAME
    name = tracker.read_text(encoding="utf-8", errors="replace").strip() if tracker.is_file() else ""
    return [path / f"iter_{int(name):07d}"] if name.isdigit() else []
