"""Pretraining checkpoints: ``SAVE/iter_0000100/``, and the pointer ``SAVE/latest_checkpointed_iteration.txt``.

A checkpoint directory holds the files of torch.distributed.checkpoint (every rank writes its shards, and a run of any
layout can load them) and ``metadata.json``, which describes the run and lists every file with its size and SHA-256. It
is written under a temporary name and renamed when it is complete; the pointer changes last. Loading verifies every file
first.

The state of random number generators is not stored: dropout, masks and sample order are functions of the seed and of
the position in the run.
"""

from pretrain.checkpoint_paths import find_checkpoint

from .async_writer import AsyncCheckpointWriter
from .disk_space import checkpoint_bytes, early_warning
from .format import (
    CheckpointConfig,
    FullCheckpoint,
    RunDescription,
    RunState,
    named_tensors,
    read_metadata,
    verify_files,
)
from .index_reader import StoredShard, StoredTensor, model_tensors, tensors_and_others
from .latest import LatestCheckpoint, describe_latest, find_latest, find_readable, newest_iteration, path_of_iteration
from .loading import load_checkpoint, load_full_checkpoint
from .other_formats import refuse_other_format, refuse_save_in_other_format
from .saving import save_checkpoint, save_weights

__all__ = [
    "AsyncCheckpointWriter",
    "CheckpointConfig",
    "FullCheckpoint",
    "LatestCheckpoint",
    "RunDescription",
    "RunState",
    "StoredShard",
    "StoredTensor",
    "checkpoint_bytes",
    "describe_latest",
    "early_warning",
    "find_checkpoint",
    "find_latest",
    "find_readable",
    "load_checkpoint",
    "load_full_checkpoint",
    "model_tensors",
    "named_tensors",
    "newest_iteration",
    "path_of_iteration",
    "read_metadata",
    "refuse_other_format",
    "refuse_save_in_other_format",
    "save_checkpoint",
    "save_weights",
    "tensors_and_others",
    "verify_files",
]
