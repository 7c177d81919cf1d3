"""Owner of pretraining checkpoints: ``SAVE/iter_0000100/`` and the pointer ``SAVE/latest_checkpointed_iteration.txt``.

A checkpoint directory holds torch.distributed.checkpoint's files (every rank writes its part, and any layout can read
them) and ``metadata.json``, which describes the run and lists every file with its size and SHA-256. It is written under
a temporary name and renamed when complete; the pointer changes last. Reading verifies every file first.

Random state is not stored, because none is kept: dropout, masks and sample order are pure functions of the seed and of
the place in the run.
"""

from .async_writer import AsyncCheckpointWriter
from .disk_space import checkpoint_bytes, early_warning
from .format import (
    CheckpointConfig,
    FullCheckpoint,
    RunDescription,
    RunState,
    find_checkpoint,
    read_metadata,
    verify_files,
)
from .index_reader import StoredPart, StoredTensor, model_tensors, named_tensors
from .loading import load_checkpoint, load_full_checkpoint
from .saving import save_checkpoint

__all__ = [
    "AsyncCheckpointWriter",
    "CheckpointConfig",
    "FullCheckpoint",
    "RunDescription",
    "RunState",
    "StoredPart",
    "StoredTensor",
    "checkpoint_bytes",
    "early_warning",
    "find_checkpoint",
    "load_checkpoint",
    "load_full_checkpoint",
    "model_tensors",
    "named_tensors",
    "read_metadata",
    "save_checkpoint",
    "verify_files",
]
