"""Detection of the format of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from converter.formats.huggingface.configuration import is_huggingface
from converter.formats.huggingface.source import HuggingFaceSource
from converter.formats.megatron.layout import TRACKER_NAME, read_megatron_checkpoint
from converter.formats.megatron.source import MegatronSource
from converter.formats.sharded.source import ShardedSource
from converter.formats.tape.source import TapeSource
from converter.options import SourceOptions
from tape.errors import CheckpointError, ConfigError

from .base import Source
from .foreign import refuse_foreign_path
from .model_files import open_model_files

SHARDED_METADATA = "metadata.json"
SHORTEST = 3  # tokens of a protein with one residue


def open_source(path: Path, options: SourceOptions) -> Source:
    """Detect the format of a checkpoint and read its settings.

    Raises:
        CheckpointError: if there is no readable checkpoint at ``path``.
        ConfigError: if an option contradicts the checkpoint, or its position table is too short for any protein.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    source = _open(path, options)
    options.check(source)
    if source.config.max_position_embeddings < SHORTEST:
        raise ConfigError(
            f"{path}: has {source.config.max_position_embeddings} positions, but <cls>, a residue and <sep> need"
            f" {SHORTEST}"
        )
    return source


def _open(path: Path, options: SourceOptions) -> Source:
    refuse_foreign_path(path)
    if is_sharded(path):
        return ShardedSource(path)
    files = open_model_files(path, options.verify)
    if files is None:
        checkpoint = read_megatron_checkpoint(path)
        return MegatronSource(checkpoint, options)
    return HuggingFaceSource(files, options) if is_huggingface(files.values) else TapeSource(files)


def is_sharded(path: Path) -> bool:
    """Whether this is a ``--save`` directory of ``pretrain_tape.py`` or one of its iterations."""
    if not path.is_dir():
        return False
    return any((folder / SHARDED_METADATA).is_file() for folder in (path, *_tracked(path)))


def _tracked(path: Path) -> list[Path]:
    tracker = path / TRACKER_NAME
    name = tracker.read_text(encoding="utf-8", errors="replace").strip() if tracker.is_file() else ""
    return [path / f"iter_{int(name):07d}"] if name.isdigit() else []
