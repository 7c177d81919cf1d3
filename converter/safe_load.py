"""Loads untrusted ``.pt`` files of Megatron-LM without executing anything in them.

A training checkpoint contains more than tensors: the argument namespace, numpy's random state, and objects of a few
Megatron-LM classes, which are discarded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tape.io.restricted_pickle import PickleTypes, constructors, refuse_arguments
from tape.models.torch_files import TORCH_TYPES, load_torch_file

# Megatron-LM classes with instances in checkpoints: the loss scaler of fp16 training (2019 and 2020); the model type in
# the arguments (since 2021), attention kernel and CUDA graphs there (core 0.11); the rerun state machine (core 0.10).
_PLACEHOLDER_CLASSES = (
    "fp16.loss_scaler.LossScaler",
    "fp16.loss_scaler.DynamicLossScaler",
    "megatron.fp16.loss_scaler.LossScaler",
    "megatron.fp16.loss_scaler.DynamicLossScaler",
    "megatron.enums.ModelType",
    "megatron.model.enums.ModelType",
    "megatron.core.enums.ModelType",
    "megatron.core.transformer.enums.AttnBackend",
    "megatron.core.transformer.enums.CudaGraphScope",
    "megatron.core.rerun_state_machine.RerunMode",
    "megatron.core.rerun_state_machine.RerunState",
    "megatron.core.rerun_state_machine.RerunDiagnostic",
)


class Placeholder:
    """Replaces an instance of a Megatron-LM class; its constructor arguments and state are discarded."""

    def __repr__(self) -> str:
        return "a discarded Megatron-LM object"


def _placeholder(*arguments: object) -> Placeholder:
    return Placeholder()


def _discard(placeholder: Placeholder, state: object) -> None:
    pass


def _set_arguments(namespace: argparse.Namespace, state: object) -> None:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise refuse_arguments("argparse.Namespace", state)
    vars(namespace).update(state)


MEGATRON_TYPES = TORCH_TYPES | PickleTypes(
    names=constructors(
        [
            ("argparse.Namespace", lambda: argparse.Namespace()),
            *((name, _placeholder) for name in _PLACEHOLDER_CLASSES),
        ]
    ),
    values=frozenset({Placeholder}),
    contents={argparse.Namespace: lambda namespace: vars(namespace).values()},
    states={argparse.Namespace: _set_arguments, Placeholder: _discard},
)


def load_checkpoint_file(path: str | Path) -> Any:
    """Load a ``.pt`` or ``.bin`` file, in zip or legacy format, onto the CPU; zip files are memory-mapped.

    Raises:
        CheckpointError: if the file is missing, truncated, not a PyTorch file, or refers to a name outside the
            allow-list (which the message gives; nothing in the file was executed).
    """
    return load_torch_file(Path(path), MEGATRON_TYPES, mapped=True)
