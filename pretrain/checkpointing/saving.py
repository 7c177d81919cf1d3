"""Saving a checkpoint: by all ranks together, complete or not at all."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata

from pretrain.checkpoint_paths import METADATA_NAME, POINTER_NAME, checkpoint_name
from pretrain.parallel import ControlGroup, ParallelContext, ParallelDims
from tape.errors import CheckpointError
from tape.io.checksums import sha256_of
from tape.io.writing import (
    atomic_write,
    describe_space,
    free_bytes,
    remove_leftovers,
    replace_directory,
    sync_folder,
    temporary_directory,
    write_json,
)
from tape.tokenizers import TAPETokenizer

from .collective_errors import error_message, run_on_all_ranks, run_on_main_rank
from .disk_space import check_free_space, checkpoint_bytes
from .format import (
    FORMAT,
    INDEX_NAME,
    MODEL_PREFIX,
    VERSION,
    RunDescription,
    RunState,
    named_tensors,
    with_checksum,
)
from .index_reader import without_single_process_warning
from .retention import Retention, remove_old_checkpoints

# NFS clients may take some time to see each other's files
_CACHE_SECONDS = 10.0
_POLL_SECONDS = 0.25
# in errors of the operating system (disk, quota or file size limit), of torch's writer, and of _describe_files
_DISK_FULL_MESSAGES = ("No space left", "quota", "File too large", "write failed", "were written")


def save_checkpoint(
    directory: str | os.PathLike[str],
    model: nn.Module,
    optimizer_state: dict[str, Tensor],
    state: RunState,
    description: RunDescription,
    context: ParallelContext,
) -> Path:
    """Write the checkpoint ``directory/iter_{iteration:07d}``; called by all ranks together.

    Args:
        directory: directory of the run's checkpoints.
        model: this rank's shards of the model.
        optimizer_state: this rank's shards of the optimizer state.
        state, description: progress and description of the run, stored in the checkpoint.
        context: this process and its place in the layout.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: on every rank, if any of them could not write. Earlier checkpoints are kept.
    """
    control_group = ControlGroup(context.rank, context.dims.world_size)
    tensors = named_tensors(model, optimizer_state)
    with without_single_process_warning():
        return write_checkpoint(Path(directory), tensors, state, description, context.dims, control_group)


def save_weights(
    directory: str | os.PathLike[str], weights: dict[str, Tensor], model_config: dict[str, Any], origin: dict[str, str]
) -> Path:
    """Write weights as a checkpoint without optimizer state, from which a run starts at iteration 0.

    Args:
        directory: directory of the checkpoint and its pointer.
        weights: fp32 tensors by parameter name, with TAPE's vocabulary.
        model_config: ProteinBertConfig.to_dict().
        origin: path and format of the model that they come from.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: the weights could not be written.
    """
    tokenizer = TAPETokenizer()
    description = RunDescription(
        model_config=model_config,
        arguments={},
        vocabulary=tokenizer.tokens,
        vocabulary_fingerprint=tokenizer.fingerprint,
        initial_weights=origin,
        weights_only=True,
    )
    tensors = {MODEL_PREFIX + name: value for name, value in weights.items()}
    with without_single_process_warning():
        return write_checkpoint(Path(directory), tensors, RunState(), description, ParallelDims(), ControlGroup())


def write_checkpoint(
    root: Path,
    tensors: dict[str, Any],
    state: RunState,
    description: RunDescription,
    dims: ParallelDims,
    control_group: ControlGroup,
    retention: Retention | None = None,
) -> Path:
    """Write tensors as the checkpoint of ``state.iteration``; called by all ranks together.

    Args:
        root: directory of the run's checkpoints.
        tensors: this rank's shards, by their names in the checkpoint.
        state, description: progress and description of the run, stored in the checkpoint.
        dims: the layout.
        control_group: all ranks; no other thread may use this group meanwhile.
        retention: how many checkpoints to keep; None: all.

    Raises:
        CheckpointError: see :func:`save_checkpoint`.
    """
    target = root / checkpoint_name(state.iteration)
    needed = checkpoint_bytes(tensors, control_group)
    failure, temporary = f"{target}: not saved", None
    with ExitStack() as owned:  # of rank 0: the directory in which all ranks write, locked until it is published
        try:
            temporary = run_on_main_rank(
                control_group, lambda: owned.enter_context(_temporary_directory(target, needed)), failure
            )
            files = _write_files(temporary, tensors, control_group, failure)
            metadata = _metadata(state, description, dims, files)
            run_on_main_rank(control_group, lambda: _publish(temporary, target, metadata, retention), failure)
        except CheckpointError as error:
            problem, began = str(error), temporary is not None
            owned.close()
            message = run_on_main_rank(control_group, lambda: _explain(problem, root, needed, began), problem)
            raise CheckpointError(message) from None
    return target


@contextmanager
def _temporary_directory(target: Path, needed: int) -> Iterator[Path]:
    """The temporary directory of a checkpoint; what killed processes have left is removed before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    check_free_space(target.parent, needed)
    with temporary_directory(target.parent, target.name) as temporary:
        yield temporary


def _explain(problem: str, root: Path, needed: int, began: bool) -> str:
    """The error message, completed with the free space, if writing has begun, and the checkpoint that is kept."""
    if began and (free_bytes(root) < needed or any(text in problem for text in _DISK_FULL_MESSAGES)):
        problem += f"; {describe_space(root, needed)}"
    pointer = root / POINTER_NAME
    last = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else None
    return problem + ("" if last is None else f"; the checkpoint of iteration {last} is kept")


def _write_files(directory: Path, tensors: dict[str, Any], group: ControlGroup, failure: str) -> dict[str, Any]:
    """Write the tensors; size and hash of each file by name."""
    index = _write_tensors(directory, tensors, group, failure)
    files = run_on_all_ranks(group, lambda: _describe_files(directory, index, group.rank), failure)
    return {name: entry for of_rank in files for name, entry in of_rank.items()}


def _write_tensors(directory: Path, tensors: dict[str, Any], group: ControlGroup, failure: str) -> Metadata:
    writer = dcp.FileSystemWriter(directory, single_file_per_rank=True, sync_files=True)
    try:
        return dcp.save(tensors, storage_writer=writer, process_group=group.group, no_dist=group.world_size == 1)
    except (CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(f"{failure}: {error_message(error)}") from error


def _describe_files(directory: Path, index: Metadata, rank: int) -> dict[str, dict[str, Any]]:
    """Size and hash of each file that this rank has written; rank 0 also has torch's index.

    Raises:
        CheckpointError: a file is shorter than what was written to it.
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


def _check_visible(directory: Path, files: dict[str, dict[str, Any]]) -> None:
    """Check that rank 0 sees the files of all ranks, before older checkpoints are given up for this one.

    Raises:
        CheckpointError: it doesn't, because hosts have different disks. Names the file and the rank that wrote it.
    """
    deadline = time.monotonic() + _CACHE_SECONDS
    for name, entry in sorted(files.items()):
        while (size := _visible_size(directory / name)) != entry["bytes"]:
            if time.monotonic() >= deadline:
                writer = re.match(r"__(\d+)_", name)
                found = "does not see it" if size is None else f"sees {size} bytes"
                raise CheckpointError(
                    f"{name}: rank {writer[1] if writer else 0} has written {entry['bytes']} bytes, and rank 0 "
                    f"{found}; --save must be on a file system that all hosts share"
                )
            time.sleep(_POLL_SECONDS)


def _visible_size(file: Path) -> int | None:
    """The size of a file; None if it can't be seen."""
    try:
        with file.open("rb") as stream:  # opening a file makes NFS ask the server
            return os.fstat(stream.fileno()).st_size
    except OSError:
        return None


def _publish(temporary: Path, target: Path, metadata: dict[str, Any], retention: Retention | None) -> None:
    _check_visible(temporary, metadata["files"])
    write_json(temporary / METADATA_NAME, with_checksum(metadata))
    sync_folder(temporary)
    replace_directory(temporary, target)  # an earlier run may have saved this iteration, too
    with atomic_write(target.parent / POINTER_NAME, "w") as stream:
        stream.write(f"{metadata['iteration']}\n")
    if retention is not None:
        remove_old_checkpoints(target.parent, retention)
