"""Loads untrusted ``.pt`` files without executing anything in them.

A PyTorch checkpoint is a pickle, and a pickle can call any function. ``torch.load(weights_only=True)`` interprets the
pickle itself and constructs only types on an allow-list. A training checkpoint of Megatron-LM contains more than
tensors: the argument namespace, numpy's random state, and objects of a few Megatron-LM classes, which are discarded.
"""

from __future__ import annotations

import argparse
import codecs
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tape.errors import CheckpointError

from .pickle_names import read_pickle_names

_Named = tuple[Callable[..., Any], str]
_REFUSED = re.compile(r"(?:GLOBAL|[Uu]nsupported class)\s+([A-Za-z_][\w.]*)")

# names in files of torch.save that torch itself allows
_TORCH_NAMES = re.compile(
    r"torch\.(\w*Storage|storage\.\w*Storage|_utils\._rebuild\w*|_tensor\._rebuild\w*|nn\.parameter\.Parameter"
    r"|Tensor|Size|device|[a-z]+\d\w*|bool|half|float|double|short|int|long)|collections\.(OrderedDict|Counter)"
)

# Megatron-LM classes with instances in checkpoints: the loss scaler of fp16 training (2019 and 2020), and the model
# type in the arguments (since 2021).
_PLACEHOLDER_CLASSES = (
    "fp16.loss_scaler.LossScaler",
    "fp16.loss_scaler.DynamicLossScaler",
    "megatron.fp16.loss_scaler.LossScaler",
    "megatron.fp16.loss_scaler.DynamicLossScaler",
    "megatron.enums.ModelType",
    "megatron.model.enums.ModelType",
    "megatron.core.enums.ModelType",
)


class Placeholder:
    """Replaces an instance of a Megatron-LM class; its constructor arguments and state are discarded."""

    def __new__(cls, *values: object) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __repr__(self) -> str:
        return "a discarded Megatron-LM object"


def _allowed() -> list[Callable[..., Any] | _Named]:
    """Types allowed in a training checkpoint beyond torch's own list (tensors, data types, OrderedDict ...)."""
    array = np.zeros(1, dtype=np.uint32)
    reconstruct = array.__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    assert callable(reconstruct)
    assert callable(scalar)
    allowed: list[Callable[..., Any] | _Named] = [
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        (codecs.encode, "_codecs.encode"),
        # numpy 2 renamed numpy.core to numpy._core; files of both versions must load
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    numbers = (np.uint8, np.int8, np.uint32, np.int32, np.uint64, np.int64, np.float32, np.float64, np.bool_)
    allowed += [type(np.dtype(number)) for number in numbers]
    allowed += [(Placeholder, name) for name in _PLACEHOLDER_CLASSES]
    return allowed


def load_checkpoint_file(path: str | Path) -> Any:
    """Load a ``.pt`` or ``.bin`` file, in zip or legacy format, onto the CPU; zip files are memory-mapped.

    Raises:
        CheckpointError: if the file is missing, truncated, not a PyTorch file, or refers to a name outside the
            allow-list (which the message gives; nothing in the file was executed).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            # torch.save writes protocol 2; other protocols raise an error below, which makes this warning redundant
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # the errors that a damaged pickle causes have no common base class
        raise CheckpointError(f"{path}: {_explain(error, path)}") from error


def _explain(error: Exception, path: Path) -> str:
    text = str(error)
    content = read_pickle_names(path)
    offending = next((name for name in content.names if not _is_expected(name)), None)
    refused = _REFUSED.search(text)
    if refused or (offending and isinstance(error, pickle.UnpicklingError)):
        name = offending or (refused.group(1) if refused else "")
        return f"refused: its pickle refers to {name}, which a checkpoint does not need; nothing was executed"
    if "Unsupported operand" in text and content.complete:
        return (
            f"refused: written with pickle protocol {content.protocol} instead of torch.save's default, 2; save it"
            " again with torch.save"
        )
    detail = text.split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
    return f"truncated or not a PyTorch checkpoint ({type(error).__name__}: {detail[:160]})"


def _is_expected(name: str) -> bool:
    """Whether a name is on the allow-list above or on torch's own."""
    ours = {
        entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in _allowed()
    }
    return name in ours or _TORCH_NAMES.fullmatch(name) is not None
