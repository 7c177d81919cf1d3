"""``checkpoint.bin`` of a saved epoch: what a resumed run needs, beside the model, to reproduce an uninterrupted one.

Keys: ``optimizer``, ``scheduler``, ``epoch`` (as in TAPE), ``scaler`` (fp16 only), ``adapter`` (``--lora`` only, see
:mod:`tape.models.lora`) and ``progress``, the fields of :class:`TrainerState`. A complete epoch needs no random states:
order, masks and dropout of an epoch are functions of (seed, epoch, rank). The state of a run that a stop signal
interrupted inside an epoch has ``partial_epoch``, too, see :mod:`tape.finetuning.partial_epoch`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tape.errors import CheckpointError
from tape.io.writing import atomic_directory, atomic_write
from tape.models.lazy_tensors import stored_bytes
from tape.models.lora import plain_state
from tape.models.model_directory import BIN_NAME, load_weights_only, save_model_directory
from tape.tokenizers import TAPETokenizer

CHECKPOINT_NAME = "checkpoint.bin"
FORMAT_VERSION = 1
STATE_KEYS = ("optimizer", "scheduler", "scaler", "adapter", "partial_epoch")


@dataclass
class TrainerState:
    """Progress of a run.

    Attributes:
        epoch: last completed epoch, from 0; -1 before the first.
        global_step: optimizer steps completed.
        best_loss: lowest validation loss; with ``--metric_for_best_model``, the criterion of that metric
            (:func:`tape.finetuning.best_epoch.criterion_of`). None before the first validation.
        best_epoch: epoch of ``best_loss``.
        best_saved_loss: the same of the saved epochs; None if none was validated.
        best_saved_epoch: epoch of ``best_saved_loss``.
    """

    epoch: int = -1
    global_step: int = 0
    best_loss: float | None = None
    best_epoch: int = -1
    best_saved_loss: float | None = None
    best_saved_epoch: int = -1

    def update_best(self, loss: float | None) -> bool:
        """Record the epoch's criterion; returns whether it is the lowest so far. None or nan is not."""
        if loss is None or math.isnan(loss) or (self.best_loss is not None and loss >= self.best_loss):
            return False
        self.best_loss, self.best_epoch = loss, self.epoch
        return True

    def update_best_saved(self, loss: float | None) -> None:
        """Record the criterion of an epoch that is saved."""
        if loss is None or math.isnan(loss) or (self.best_saved_loss is not None and loss >= self.best_saved_loss):
            return
        self.best_saved_loss, self.best_saved_epoch = loss, self.epoch


def save_epoch(
    directory: Path,
    model: nn.Module,
    training_state: dict[str, Any],
    state: TrainerState,
    *,
    tokenizer: TAPETokenizer,
    provenance: dict[str, Any],
) -> None:
    """Write a model directory with its ``checkpoint.bin``, atomically.

    Args:
        directory: directory of the epoch; an existing one is replaced.
        model: has an attribute ``config``.
        training_state: ``optimizer``, ``scheduler`` and, if used, ``scaler``, ``adapter`` and ``partial_epoch``.
        state: progress of the run.
        tokenizer: vocabulary that the model was trained with.
        provenance: origin of the weights.
    """
    config: Any = model.config
    model_state = plain_state(model)
    content = {"format_version": FORMAT_VERSION, **training_state, "epoch": state.epoch, "progress": asdict(state)}
    with atomic_directory(directory, overwrite=True) as temporary:
        with atomic_write(temporary / CHECKPOINT_NAME, needed=stored_bytes(content)) as stream:
            torch.save(content, stream)
        save_model_directory(
            temporary, model_state, config, weights=BIN_NAME, provenance=provenance, tokenizer=tokenizer
        )


def load_training_state(directory: Path, *, verify: bool = True) -> tuple[dict[str, Any], TrainerState]:
    """Read a saved epoch's ``checkpoint.bin``.

    Args:
        directory: directory of the epoch.
        verify: compare the records of the file with their CRCs.

    Raises:
        CheckpointError: missing, damaged, or not of a run of this project (see :mod:`tape.finetuning.tape_state`).
    """
    file = directory / CHECKPOINT_NAME
    if not file.is_file():
        raise CheckpointError(f"{directory}: no {CHECKPOINT_NAME} there, so training can't be resumed from it")
    content = load_weights_only(file, verify=verify)
    try:
        state = TrainerState(**content["progress"])
        return {name: content[name] for name in STATE_KEYS if name in content}, state
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file}: lacks the progress of the run ({error}); start a new run from this model without"
            " --resume_from_checkpoint"
        ) from error
