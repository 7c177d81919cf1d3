"""Loading a checkpoint: resharded into a running model of any layout, or gathered into plain tensors."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.checkpoint_paths import POINTER_NAME, find_checkpoint
from pretrain.parallel import ControlGroup, ParallelContext
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, quoted

from .collective_errors import run_on_all_ranks
from .format import (
    MODEL_PREFIX,
    FullCheckpoint,
    RunDescription,
    RunState,
    named_tensors,
    read_metadata,
    verify_files,
)
from .index_reader import IndexReader, load_tensors, model_tensors


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer_state: dict[str, Tensor],
    description: RunDescription,
    context: ParallelContext,
    *,
    verify: bool = True,
) -> RunState:
    """Load model and optimizer state in place; called by all ranks together.

    Args:
        path: one ``iter_...`` directory; it may have been saved at another layout.
        model: this rank's shards of the model.
        optimizer_state: this rank's shards of the optimizer state.
        description: description of this run, which must have the same model and vocabulary.
        context: this process and its place in the layout.
        verify: compare all files with their recorded hashes first.

    Returns:
        The progress of the run that saved the checkpoint.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another model. Names the file or the difference.
    """
    metadata = read_metadata(path)
    _check_same_model(path, metadata, description)
    if verify:
        group = ControlGroup(context.rank, context.dims.world_size)
        run_on_all_ranks(
            group, lambda: verify_files(path, metadata["files"], group.rank, group.world_size), "cannot resume"
        )
    tensors = named_tensors(model, optimizer_state)
    _check_names(path, tensors)
    load_tensors(tensors, path, single_process=context.mesh is None)
    return _run_state(path, metadata)


def _run_state(path: Path, metadata: dict[str, Any]) -> RunState:
    """The progress of the run; fields that an earlier version did not save have their defaults."""
    saved = {field.name: metadata[field.name] for field in fields(RunState) if field.name in metadata}
    for name, value in saved.items():
        expected = type(getattr(RunState(), name))
        if type(value) is not expected:
            raise CheckpointError(f"{path}: {name} must be of type {expected.__name__}, not {quoted(value)}")
    for name, number in saved.get("loss_scale", {}).items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) <= sys.float_info.max:
            raise CheckpointError(f"{path}: {name} of loss_scale must be a finite number, not {quoted(number)}")
    return RunState(**saved)


def _check_same_model(path: Path, metadata: dict[str, Any], description: RunDescription) -> None:
    if metadata["vocabulary_fingerprint"] != description.vocabulary_fingerprint:
        raise CheckpointError(f"{path}: trained with another vocabulary ({metadata['vocabulary_fingerprint']})")
    free = {"attention_probs_dropout_prob", "hidden_dropout_prob", "initializer_range", "initial_attention"}
    # Parsed by the class: a field that did not exist yet when the checkpoint was saved gets its default.
    try:
        saved = ProteinBertConfig.from_dict(metadata["model_config"]).to_dict()
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: its model_config is damaged: {error}") from error
    wanted = description.model_config
    names = sorted((saved.keys() | wanted.keys()) - free)
    differences = [
        f"{name} is {saved.get(name)} in the checkpoint, {wanted.get(name)} in this run"
        for name in names
        if saved.get(name) != wanted.get(name)
    ]
    if differences:
        raise CheckpointError(f"{path}: holds another model: {'; '.join(differences)}")


def _check_names(path: Path, wanted: dict[str, Any]) -> None:
    stored = IndexReader(path).read_metadata().state_dict_metadata
    missing = sorted(wanted.keys() - stored.keys())
    if missing:
        raise CheckpointError(
            f"{path}: has no {missing[0]} ({len(missing)} tensors missing); was it saved with another --optimizer?"
        )


def load_full_checkpoint(
    directory: str | os.PathLike[str], iteration: int | None = None, *, verify: bool = True
) -> FullCheckpoint:
    """Gather a checkpoint's model, saved at any layout, into plain CPU tensors; needs no process group.

    Args:
        directory: the run's checkpoint directory, or one ``iter_...`` directory in it.
        iteration: which checkpoint; None: the latest.
        verify: compare all files with their recorded hashes first.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged. Names the file.
    """
    path = find_checkpoint(directory, iteration)
    if path is None:
        raise CheckpointError(f"{os.fspath(directory)}: no checkpoint there ({POINTER_NAME} is missing)")
    metadata = read_metadata(path)
    if verify:
        verify_files(path, metadata["files"])
    tensors = {
        MODEL_PREFIX + name: torch.empty(entry.shape, dtype=entry.dtype) for name, entry in model_tensors(path).items()
    }
    load_tensors(tensors, path, single_process=True)
    return FullCheckpoint(
        model={name.removeprefix(MODEL_PREFIX): value for name, value in tensors.items()},
        model_config=metadata["model_config"],
        arguments=metadata["arguments"],
        iteration=metadata["iteration"],
        vocabulary=metadata["vocabulary"],
        path=path,
    )
