"""What a saved epoch holds beside the model: ``checkpoint.bin``, enough to go on exactly as if never interrupted.

Keys: ``optimizer``, ``scheduler``, ``epoch`` (as TAPE's), ``scaler`` (fp16 only), ``adapter`` (``--lora`` only, see
:mod:`tape.models.lora`) and ``progress``: global step, best validation loss and its epoch. Random states need no
saving: order, masks and dropout of an epoch are functions of (seed, epoch, rank).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tape.errors import CheckpointError
from tape.io.atomic import atomic_directory, atomic_write
from tape.models.lora import plain_state
from tape.models.model_directory import BIN_NAME, load_weights_only, save_model_directory
from tape.tokenizers import TAPETokenizer

CHECKPOINT_NAME = "checkpoint.bin"
FORMAT_VERSION = 1
STATE_KEYS = ("optimizer", "scheduler", "scaler", "adapter")


@dataclass
class TrainerState:
    """How far a run is.

    Attributes:
        epoch: last completed epoch, from 0; -1 before the first.
        global_step: optimizer steps made.
        best_loss: lowest validation loss; None before the first validation.
        best_epoch: its epoch.
        best_saved_loss: lowest validation loss of the epochs that were saved; None when none was validated.
        best_saved_epoch: its epoch.
    """

    epoch: int = -1
    global_step: int = 0
    best_loss: float | None = None
    best_epoch: int = -1
    best_saved_loss: float | None = None
    best_saved_epoch: int = -1


def save_epoch(
    directory: Path,
    model: nn.Module,
    training_state: dict[str, Any],
    progress: TrainerState,
    *,
    tokenizer: TAPETokenizer,
    provenance: dict[str, Any],
) -> None:
    """Write a model directory with its ``checkpoint.bin``; it appears whole or not at all.

    Args:
        directory: of the epoch; an older one of that name is replaced.
        model: with ``config``.
        training_state: ``optimizer``, ``scheduler`` and, where there are any, ``scaler`` and ``adapter``.
        progress: how far the run is.
        tokenizer: vocabulary the model was trained with.
        provenance: where the weights come from.
    """
    config: Any = model.config
    with atomic_directory(directory, overwrite=True) as temporary:
        save_model_directory(
            temporary, plain_state(model), config, weights=BIN_NAME, provenance=provenance, tokenizer=tokenizer
        )
        state = {
            "format_version": FORMAT_VERSION,
            **training_state,
            "epoch": progress.epoch,
            "progress": asdict(progress),
        }
        with atomic_write(temporary / CHECKPOINT_NAME) as stream:
            torch.save(state, stream)


def load_training_state(directory: Path) -> tuple[dict[str, Any], TrainerState]:
    """Read a saved epoch's ``checkpoint.bin``.

    Raises:
        CheckpointError: missing, damaged, or from TAPE or ProteinLM, which do not save enough to go on.
    """
    file = directory / CHECKPOINT_NAME
    if not file.is_file():
        raise CheckpointError(f"{directory}: no {CHECKPOINT_NAME} there, so training can't be resumed from it")
    state = load_weights_only(file)
    try:
        progress = TrainerState(**state["progress"])
        return {name: state[name] for name in STATE_KEYS if name in state}, progress
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file}: has no record of its progress ({error}); start a new run from this model without"
            " --resume_from_checkpoint"
        ) from error
