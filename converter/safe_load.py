"""Loads untrusted ``.pt`` files of Megatron-LM without executing anything in them.

A training checkpoint contains more than tensors: the argument namespace, numpy's random state, and objects of
Megatron-LM's own classes, which are replaced by placeholders without looking up the classes.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tape.io.restricted_pickle import Constructor, PickleTypes, constructors, refuse_arguments
from tape.models.torch_files import TORCH_TYPES, load_torch_file

# Classes outside the package megatron with instances in checkpoints: the loss scaler of fp16 training (2019 and 2020);
# the signal that ends a run (core 0.16), an enum; the buffers of Transformer Engine's extra state.
_PLACEHOLDER_CLASSES = (
    "fp16.loss_scaler.LossScaler",
    "fp16.loss_scaler.DynamicLossScaler",
    "signal.Signals",
    "_io.BytesIO",
)
# enums of arguments, the rerun state machine, and whatever else a version pickles with the arguments
_MEGATRON_NAME = re.compile(r"megatron(\.[A-Za-z_]\w*)+", re.ASCII)
# A signal as Python before 3.11.4 pickles it: a constant, while later versions call Signals with its number.
_SIGNAL_NAME = re.compile(r"signal\.SIG[A-Z0-9]+", re.ASCII)
# How Python 3.11.0 to 3.11.3 pickles members of enums, and combinations of flags.
_MEMBER, _COMBINATION = "builtins.getattr", "_operator.or_"


class Placeholder:
    """Replaces an instance of a class of Megatron-LM, which is not looked up; arguments and state are discarded.

    Args:
        name: what it replaces, for messages.
    """

    def __init__(self, name: str = "a discarded object") -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


def _placeholders_of(name: str) -> Constructor:
    def build(*arguments: object) -> Placeholder:
        value = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], (int, str)) else ""
        return Placeholder(f"{name}({str(value)[:40]})")

    return Constructor(name, build)


def _member(kind: object, name: object) -> Placeholder:
    """Member of an enum, by its class and name."""
    if not isinstance(kind, Constructor) or not _is_placeholder(kind.name) or not isinstance(name, str):
        raise refuse_arguments(_MEMBER, (kind, name))
    return Placeholder(f"{kind.name}.{name[:40]}")


def _combination(one: object, other: object) -> Placeholder:
    """Combination of two members of a flag."""
    if not isinstance(one, Placeholder) or not isinstance(other, Placeholder):
        raise refuse_arguments(_COMBINATION, (one, other))
    return Placeholder(f"{one!r:.100} | {other!r:.100}")


def _is_placeholder(name: str) -> bool:
    return name in _PLACEHOLDER_CLASSES or _MEGATRON_NAME.fullmatch(name) is not None


class _Names(dict[str, object]):
    """The allowed names; those of the package megatron and of signals stand for placeholders."""

    def __missing__(self, name: str) -> Constructor | Placeholder:
        if _SIGNAL_NAME.fullmatch(name):
            return Placeholder(name)
        if not _is_placeholder(name):
            raise KeyError(name)
        return _placeholders_of(name)


def _discard(placeholder: Placeholder, state: object) -> None:
    pass


def _set_arguments(namespace: argparse.Namespace, state: object) -> None:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise refuse_arguments("argparse.Namespace", state)
    vars(namespace).update(state)


_TYPES = TORCH_TYPES | PickleTypes(
    names=constructors(
        [("argparse.Namespace", lambda: argparse.Namespace()), (_MEMBER, _member), (_COMBINATION, _combination)]
    ),
    values=frozenset({Placeholder}),
    contents={argparse.Namespace: lambda namespace: vars(namespace).values()},
    states={argparse.Namespace: _set_arguments, Placeholder: _discard},
)
MEGATRON_TYPES = replace(_TYPES, names=_Names(_TYPES.names))


def load_checkpoint_file(path: str | Path) -> Any:
    """Load a ``.pt`` or ``.bin`` file, in zip or legacy format, onto the CPU; zip files are memory-mapped.

    Raises:
        CheckpointError: if the file is missing, truncated, not a PyTorch file, or refers to a name outside the
            allow-list (which the message gives; nothing in the file was executed).
    """
    return load_torch_file(Path(path), MEGATRON_TYPES, mapped=True)
