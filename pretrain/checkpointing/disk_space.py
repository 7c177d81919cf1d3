"""The size of a checkpoint, and whether the disk has space for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pretrain.parallel import ControlGroup
from tape.errors import CheckpointError
from tape.io.writing import describe_space, format_bytes, free_bytes

# Overhead of torch's serialization per tensor (measured: 1.2 to 1.6 kB), and of index and metadata per checkpoint.
_BYTES_PER_TENSOR = 2048
_BYTES_PER_CHECKPOINT = 65536


def checkpoint_bytes(tensors: dict[str, Any], control_group: ControlGroup) -> int:
    """Approximate size in bytes of a checkpoint of these tensors; called by all ranks together.

    A tensor that several ranks hold, as shards or as replicas, is counted once.

    Args:
        tensors: this rank's tensors by name.
        control_group: all ranks.
    """
    sizes: dict[str, int] = {}
    for of_rank in control_group.gather({name: _tensor_bytes(value) for name, value in tensors.items()}):
        sizes.update(of_rank)
    return sum(sizes.values()) + _BYTES_PER_TENSOR * len(sizes) + _BYTES_PER_CHECKPOINT


def _tensor_bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()  # a DTensor counts the elements of all its shards


def check_free_space(directory: Path, needed: int) -> None:
    """Make sure that a checkpoint fits before any of it is written.

    Raises:
        CheckpointError: less than ``needed`` bytes are free. States both numbers.
    """
    if free_bytes(directory) < needed:
        raise CheckpointError(f"the disk is too full: {describe_space(directory, needed)}")


def early_warning(directory: Path, needed: int, kept: int) -> str | None:
    """A warning if the disk can't hold all checkpoints that the run will keep, given at its start; otherwise None.

    Args:
        directory: the run's checkpoint directory.
        needed: bytes of one checkpoint.
        kept: largest number of checkpoints at a time, including the one that is being written.
    """
    free = free_bytes(directory)
    if free >= needed * kept:
        return None
    return (
        f"WARNING: {directory} has {format_bytes(free)} free, too little for {kept} checkpoints of "
        f"{format_bytes(needed)}; free disk space, or keep fewer checkpoints with --keep-last"
    )
