"""Reading a checkpoint: into a running model at any layout, or gathered into plain tensors."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from pretrain.parallel import ParallelContext
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError

from .collective_errors import raised_on_all_ranks
from .format import (
    MODEL_PREFIX,
    POINTER_NAME,
    FullCheckpoint,
    RunDescription,
    RunState,
    find_checkpoint,
    read_metadata,
    verify_files,
)
from .index_reader import IndexReader, fill_tensors, named_tensors


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer_state: dict[str, Tensor],
    description: RunDescription,
    processes: ParallelContext,
) -> RunState:
    """Fill model and optimizer in place; called by all ranks together, at any layout.

    Raises:
        CheckpointError: the checkpoint is damaged or of another model. Names the file or the difference.
    """
    metadata = read_metadata(path)
    _check_same_model(path, metadata, description)
    world = processes.dims.world_size
    raised_on_all_ranks(
        processes, lambda: verify_files(path, metadata["files"], processes.rank, world), "cannot continue"
    )
    tensors = named_tensors(model, optimizer_state)
    _check_names(path, tensors)
    fill_tensors(tensors, path, alone=processes.mesh is None)
    return RunState(**{field.name: metadata[field.name] for field in fields(RunState) if field.name in metadata})


def _check_same_model(path: Path, metadata: dict[str, Any], description: RunDescription) -> None:
    if metadata["vocabulary_fingerprint"] != description.vocabulary_fingerprint:
        raise CheckpointError(f"{path}: trained with another vocabulary ({metadata['vocabulary_fingerprint']})")
    free = {"attention_probs_dropout_prob", "hidden_dropout_prob", "initializer_range", "initial_attention"}
    # through the class: a field that is newer than the checkpoint has its default there
    saved, wanted = ProteinBertConfig.from_dict(metadata["model_config"]).to_dict(), description.model_config
    names = sorted((saved.keys() | wanted.keys()) - free)
    differences = [
        f"{name} is {saved.get(name)} there, {wanted.get(name)} here"
        for name in names
        if saved.get(name) != wanted.get(name)
    ]
    if differences:
        raise CheckpointError(f"{path}: of another model: {'; '.join(differences)}")


def _check_names(path: Path, wanted: dict[str, Any]) -> None:
    stored = IndexReader(path).read_metadata().state_dict_metadata
    missing = sorted(wanted.keys() - stored.keys())
    if missing:
        raise CheckpointError(f"{path}: holds no {missing[0]} ({len(missing)} missing); was --optimizer another one?")


def load_full_checkpoint(
    directory: str | os.PathLike[str], iteration: int | None = None, *, verify: bool = True
) -> FullCheckpoint:
    """Gather the model of a checkpoint of any layout into plain CPU tensors; needs no process group.

    Args:
        directory: of a run, or one ``iter_...`` directory.
        iteration: None for the latest.
        verify: compare all files with their recorded hashes first.

    Raises:
        CheckpointError: no checkpoint there, or a damaged one. Names the file.
    """
    path = find_checkpoint(directory, iteration)
    if path is None:
        raise CheckpointError(f"{os.fspath(directory)}: no checkpoint there (no {POINTER_NAME})")
    metadata = read_metadata(path)
    if verify:
        verify_files(path, metadata["files"])
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in IndexReader(path).read_metadata().state_dict_metadata.items()
        if name.startswith(MODEL_PREFIX) and isinstance(entry, TensorStorageMetadata)
    }
    fill_tensors(tensors, path, alone=True)
    return FullCheckpoint(
        model={name.removeprefix(MODEL_PREFIX): value for name, value in tensors.items()},
        model_config=metadata["model_config"],
        arguments=metadata["arguments"],
        iteration=metadata["iteration"],
        vocabulary=metadata["vocabulary"],
        path=path,
    )
