"""Detection of the format of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from converter.formats.huggingface.configuration import is_huggingface
from converter.formats.huggingface.source import HuggingFaceSource
from converter.formats.megatron.distributed import is_distributed, read_distributed_checkpoint
from converter.formats.megatron.layout import read_megatron_checkpoint
from converter.formats.megatron.source import MegatronSource
from converter.formats.sharded.source import ShardedSource, is_sharded
from converter.formats.tape.source import TapeSource
from converter.options import SourceOptions
from tape.errors import CheckpointError, ConfigError

from .base import Source
from .foreign import refuse_foreign_path
from .model_files import open_model_files
from .record import verify_recorded_files

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
    if options.verify:
        verify_recorded_files(path)
    if is_distributed(path):
        return MegatronSource(read_distributed_checkpoint(path), options)
    if is_sharded(path):
        return ShardedSource(path)
    files = open_model_files(path, options.verify)
    if files is None:
        checkpoint = read_megatron_checkpoint(path)
        return MegatronSource(checkpoint, options)
    return HuggingFaceSource(files, options) if is_huggingface(files.values) else TapeSource(files)
