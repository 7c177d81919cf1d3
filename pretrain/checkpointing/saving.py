"""Writing a checkpoint: all ranks together, complete or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from tape.atomic_files import atomic_write, current_umask, replace_directory, sync_folder, write_json
from tape.errors import CheckpointError
from tape.file_hashes import sha256_of

from ..parallel import Processes
from .agreement import agreed, agreed_by_all, reason_of
from .format import FORMAT, METADATA_NAME, POINTER_NAME, VERSION, RunDescription, RunState
from .index import named_tensors, without_loneliness_warning


def save_checkpoint(
    directory: str | os.PathLike[str],
    model: nn.Module,
    optimizer_state: dict[str, Tensor],
    state: RunState,
    description: RunDescription,
    processes: Processes,
) -> Path:
    """Write ``directory/iter_{iteration:07d}``; called by all ranks together.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: on every rank, when any of them couldn't write. What was there before stays.
    """
    root = Path(directory)
    target = root / f"iter_{state.iteration:07d}"
    temporary = Path(agreed(processes, lambda: _temporary_directory(target), f"{target}: cannot be made"))
    try:
        _write_tensors(temporary, named_tensors(model, optimizer_state), processes)
        parts = agreed_by_all(processes, lambda: _describe_files(temporary, processes.rank), f"{target}: not saved")
        files = {name: entry for part in parts for name, entry in part.items()}
        metadata = _metadata(state, description, processes, files)
        agreed(processes, lambda: _publish(temporary, target, metadata), f"{target}: not saved")
    except CheckpointError:
        if processes.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _temporary_directory(target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in target.parent.glob(".iter_*.tmp"):
        shutil.rmtree(abandoned, ignore_errors=True)
    temporary = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.chmod(temporary, 0o777 & ~current_umask())
    return temporary


def _write_tensors(directory: Path, tensors: dict[str, Any], processes: Processes) -> None:
    writer = dcp.FileSystemWriter(directory, single_file_per_rank=True, sync_files=True)
    try:
        with without_loneliness_warning():
            dcp.save(tensors, storage_writer=writer, no_dist=processes.mesh is None)
    except (CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(f"{directory}: not saved: {reason_of(error)}") from error


def _describe_files(directory: Path, rank: int) -> dict[str, dict[str, Any]]:
    """Size and hash of the files that this rank wrote (rank 0 also torch's index)."""
    own = re.compile(rf"__{rank}_\d+\.distcp" + (r"|\.metadata" if rank == 0 else ""))
    return {path.name: _describe_file(path) for path in sorted(directory.iterdir()) if own.fullmatch(path.name)}


def _describe_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _metadata(
    state: RunState, description: RunDescription, processes: Processes, files: dict[str, Any]
) -> dict[str, Any]:
    layout = {"tensor": processes.dims.tensor, "data": processes.dims.data}
    return {
        "format": FORMAT,
        "version": VERSION,
        "layout": layout,
        "files": files,
        **asdict(description),
        **asdict(state),
    }


def _publish(temporary: Path, target: Path, metadata: dict[str, Any]) -> None:
    write_json(temporary / METADATA_NAME, metadata)
    sync_folder(temporary)
    replace_directory(temporary, target)  # the same iteration may be there from before an older checkpoint was loaded
    with atomic_write(target.parent / POINTER_NAME, "w") as stream:
        stream.write(f"{metadata['iteration']}\n")
