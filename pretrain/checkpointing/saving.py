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
from torch.distributed.checkpoint.metadata import Metadata

from pretrain.parallel import ControlGroup, ParallelContext, ParallelDims
from tape.errors import CheckpointError
from tape.io.atomic import atomic_write, current_umask, replace_directory, sync_folder, write_json
from tape.io.checksums import sha256_of

from .collective_errors import agreed, raised_on_all_ranks, reason_of
from .disk_space import checkpoint_bytes, free_bytes, readable, require_space
from .format import FORMAT, INDEX_NAME, METADATA_NAME, POINTER_NAME, VERSION, RunDescription, RunState
from .index_reader import named_tensors, without_single_process_warning
from .retention import Retention, remove_older, tidy

# of the system (no space, over quota, larger than the process may write), of torch's writer, and ours of a short file
_WORDS_OF_A_FULL_DISK = ("No space left", "quota", "File too large", "write failed", "were written")


def save_checkpoint(
    directory: str | os.PathLike[str],
    model: nn.Module,
    optimizer_state: dict[str, Tensor],
    state: RunState,
    description: RunDescription,
    processes: ParallelContext,
) -> Path:
    """Write ``directory/iter_{iteration:07d}`` and return when it is there; called by all ranks together.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: on every rank, when any of them couldn't write. What was there before stays.
    """
    ranks = ControlGroup(processes.rank, processes.dims.world_size)
    tensors = named_tensors(model, optimizer_state)
    with without_single_process_warning():
        return write_checkpoint(Path(directory), tensors, state, description, processes.dims, ranks)


def write_checkpoint(
    root: Path,
    tensors: dict[str, Any],
    state: RunState,
    description: RunDescription,
    dims: ParallelDims,
    ranks: ControlGroup,
    retention: Retention | None = None,
) -> Path:
    """Write given tensors as the checkpoint of ``state.iteration``; called by all ranks together.

    Args:
        root: directory of the run's checkpoints.
        tensors: by their names in the checkpoint; this rank's parts of them.
        state, description: what the checkpoint says about the run.
        dims: the layout.
        ranks: whom to write with; nobody else uses this group meanwhile.
        retention: checkpoints to keep; None: all.

    Raises:
        CheckpointError: as :func:`save_checkpoint`.
    """
    target = root / f"iter_{state.iteration:07d}"
    needed = checkpoint_bytes(tensors, ranks)
    temporary = None
    try:
        temporary = Path(agreed(ranks, lambda: _temporary_directory(target, needed), f"{target}: not saved"))
        files = _write_files(temporary, target, tensors, ranks)
        metadata = _metadata(state, description, dims, files)
        agreed(ranks, lambda: _publish(temporary, target, metadata, retention), f"{target}: not saved")
    except CheckpointError as error:
        problem = str(error)
        raise CheckpointError(agreed(ranks, lambda: _clean_up(problem, temporary, root, needed), problem)) from None
    return target


def _temporary_directory(target: Path, needed: int) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    tidy(target.parent)
    require_space(target.parent, needed)
    temporary = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.chmod(temporary, 0o777 & ~current_umask())
    return temporary


def _clean_up(problem: str, temporary: Path | None, root: Path, needed: int) -> str:
    """Leave nothing half-written behind, and say what room there is and what stays."""
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)
        free = free_bytes(root)
        if free < needed or any(words in problem for words in _WORDS_OF_A_FULL_DISK):
            problem += f"; {readable(needed)} are needed, {readable(free)} are free"
    pointer = root / POINTER_NAME
    last = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None
    return problem + ("" if last is None else f"; the checkpoint of iteration {last} stays")


def _write_files(directory: Path, target: Path, tensors: dict[str, Any], ranks: ControlGroup) -> dict[str, Any]:
    """Write the tensors; the size and hash of every file by name."""
    index = _write_tensors(directory, target, tensors, ranks)
    parts = raised_on_all_ranks(ranks, lambda: _describe_files(directory, index, ranks.rank), f"{target}: not saved")
    return {name: entry for part in parts for name, entry in part.items()}


def _write_tensors(directory: Path, target: Path, tensors: dict[str, Any], ranks: ControlGroup) -> Metadata:
    writer = dcp.FileSystemWriter(directory, single_file_per_rank=True, sync_files=True)
    try:
        return dcp.save(tensors, storage_writer=writer, process_group=ranks.group, no_dist=ranks.world_size == 1)
    except (CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(f"{target}: not saved: {reason_of(error)}") from error


def _describe_files(directory: Path, index: Metadata, rank: int) -> dict[str, dict[str, Any]]:
    """Size and hash of the files that this rank wrote (rank 0 also torch's index).

    Raises:
        CheckpointError: a file is shorter than what was written into it.
    """
    own = re.compile(rf"__{rank}_\d+\.distcp" + (rf"|{re.escape(INDEX_NAME)}" if rank == 0 else ""))
    ends: dict[str, int] = {}
    for place in (index.storage_data or {}).values():
        ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
    written = {path.name: path for path in sorted(directory.iterdir()) if own.fullmatch(path.name)}
    for name in written.keys() | {name for name in ends if own.fullmatch(name)}:
        size = (directory / name).stat().st_size
        if size < ends.get(name, 1):
            raise CheckpointError(f"{name} has {size} bytes where {ends.get(name, 1)} were written")
    return {name: _describe_file(path) for name, path in written.items()}


def _describe_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _metadata(
    state: RunState, description: RunDescription, dims: ParallelDims, files: dict[str, Any]
) -> dict[str, Any]:
    layout = dims.as_dict()
    return {
        "format": FORMAT,
        "version": VERSION,
        "layout": layout,
        "files": files,
        **asdict(description),
        **asdict(state),
    }


def _publish(temporary: Path, target: Path, metadata: dict[str, Any], retention: Retention | None) -> None:
    write_json(temporary / METADATA_NAME, metadata)
    sync_folder(temporary)
    replace_directory(temporary, target)  # the same iteration may be there from before an older checkpoint was loaded
    with atomic_write(target.parent / POINTER_NAME, "w") as stream:
        stream.write(f"{metadata['iteration']}\n")
    if retention is not None:
        remove_older(target.parent, retention)
