"""The checkpoint that a run resumes from: the one that the pointer names, or else the newest complete one.

A pointer that was lost, or that names a checkpoint which is missing or damaged, must not make a run start from the
beginning: it would replace the checkpoints that are left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pretrain.checkpoint_paths import (
    METADATA_NAME,
    POINTER_NAME,
    checkpoint_path,
    find_checkpoint,
    iteration_of_name,
    numbered_paths,
)
from pretrain.parallel import ControlGroup
from tape.errors import CheckpointError, listed
from tape.io.checkpoint_formats import recognize_format
from tape.io.checksums import sha256_of

from .collective_errors import run_on_all_ranks, run_on_main_rank
from .format import read_metadata, verify_files
from .other_formats import refuse_other_format, refuse_other_weights


@dataclass(frozen=True)
class LatestCheckpoint:
    """What a directory of checkpoints holds.

    Attributes:
        path: the checkpoint to resume from, verified; None: there is none.
        notices: one line if it is not the checkpoint that the pointer names.
    """

    path: Path | None
    notices: tuple[str, ...] = ()


def find_latest(directory: str | os.PathLike[str], group: ControlGroup, *, has_model: bool = False) -> LatestCheckpoint:
    """Find and verify the checkpoint to resume from; called by all ranks together.

    Each rank compares some of the files with their SHA-256. A checkpoint that any rank can't read is passed over.

    Args:
        directory: the run's checkpoint directory, or one ``iter_...`` directory in it, which is the only candidate.
        group: all ranks.
        has_model: whether a run without a checkpoint starts from a model, so that other weights in the directory are no
            mistake.

    Raises:
        CheckpointError: on all ranks: no checkpoint is complete and undamaged, or the directory holds a model of
            another format.
    """
    root = Path(directory)
    run_on_main_rank(group, lambda: refuse_other_format(root), "cannot resume")
    if (root / METADATA_NAME).is_file():
        _verify(root, group)
        return LatestCheckpoint(root)
    names, problem = run_on_main_rank(group, lambda: _candidates(root), "cannot resume")
    problems = [problem] if problem else []
    for name in names:
        try:
            _verify(root / name, group)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if not problems:
            return LatestCheckpoint(root / name)
        found = f"WARNING: {'; '.join(problems)}. Resuming from {root / name}, the newest complete checkpoint"
        return LatestCheckpoint(root / name, (found,))
    if problems:
        raise CheckpointError(
            f"{root}: no complete checkpoint to resume from: {'; '.join(problems)}. Restore one of them, or remove "
            f"{POINTER_NAME} and the iter_... directories to start from the beginning"
        )
    if not has_model:
        run_on_main_rank(group, lambda: refuse_other_weights(root), "cannot resume")
    return LatestCheckpoint(None)


def find_readable(directory: str | os.PathLike[str]) -> Path | None:
    """The checkpoint that a run would resume from, judged by its metadata alone; None: there is none.

    Raises:
        CheckpointError: there are checkpoints, but none with readable metadata.
    """
    root = Path(directory)
    names, problem = _candidates(root)
    problems = [problem] if problem else []
    for name in names:
        try:
            read_metadata(root / name)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return root / name
    if problems:
        raise CheckpointError("; ".join(problems))
    return None


def describe_latest(directory: str | os.PathLike[str]) -> str:
    """The checkpoint in a directory, as text that is equal on ranks that see the same one; reads only its metadata."""
    root = Path(directory)
    try:
        path = find_checkpoint(root)
        if path is not None:
            return f"{path.name} (metadata {sha256_of(path / METADATA_NAME)[:16]})"
        names = [path.name for path in _newest_first(root)]
    except (CheckpointError, OSError) as error:
        return str(error)
    return f"no {POINTER_NAME}, but {', '.join(names)}" if names else "no checkpoint"


def path_of_iteration(directory: str | os.PathLike[str], iteration: int) -> Path:
    """The checkpoint of an iteration (``--ckpt-step``) in ``--load``, in the format of this project or of Megatron-LM.

    Raises:
        CheckpointError: there is none, or it is incomplete.
    """
    root = Path(directory)
    chooses = "--ckpt-step chooses one of the iter_... directories in it"
    if not root.is_dir():
        raise CheckpointError(f"--load {root}: {'a file' if root.exists() else 'does not exist'}; {chooses}")
    if iteration_of_name(root) is not None or (root / METADATA_NAME).is_file():
        parent = (root.resolve() if root.is_symlink() else root).parent
        raise CheckpointError(f"--load {root}: one checkpoint; {chooses}: give {parent}, or leave out --ckpt-step")
    there = [path for path in _newest_first(root) if _is_complete(path)]
    path = checkpoint_path(root, iteration)
    if path.is_dir() and _is_complete(path):
        return path
    problem = f"incomplete ({METADATA_NAME} is missing)" if path.is_dir() else "no such checkpoint"
    if there:
        choice = f"complete iterations there: {listed(map(iteration_of_name, there))}"
    else:
        choice = f"{root} has no complete one; leave out --ckpt-step to start from a single model"
    raise CheckpointError(f"--ckpt-step {iteration}: {path}: {problem}; {choice}")


def _is_complete(path: Path) -> bool:
    """Whether an iteration's directory is a checkpoint of this project or of Megatron-LM, by the names of its files."""
    return (path / METADATA_NAME).is_file() or recognize_format(path) is not None


def newest_iteration(directory: str | os.PathLike[str]) -> int | None:
    """The last iteration of which a directory holds a checkpoint, complete or not; None: there is none."""
    newest = next(_newest_first(Path(directory)), None)
    return None if newest is None else iteration_of_name(newest)


def _candidates(root: Path) -> tuple[list[str], str | None]:
    """The checkpoints by their paths below ``root``, the pointer's first, then from new to old; and the pointer's
    problem."""
    problem, first = None, None
    try:
        first = find_checkpoint(root)
    except CheckpointError as error:
        problem = str(error)
    found = [path for path in _newest_first(root) if path != first]
    if first is None and problem is None and found:
        problem = f"{root / POINTER_NAME}: missing"
    return [str(path.relative_to(root)) for path in (*filter(None, [first]), *found)], problem


def _newest_first(root: Path) -> Iterator[Path]:
    return (path for _, path in sorted(numbered_paths(root).items(), reverse=True))


def _verify(path: Path, group: ControlGroup) -> None:
    def verify() -> None:
        verify_files(path, read_metadata(path)["files"], group.rank, group.world_size)

    run_on_all_ranks(group, verify, "cannot resume")
