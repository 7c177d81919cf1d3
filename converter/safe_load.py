"""Reads ``.pt`` files of other people without running anything that they contain.

A PyTorch checkpoint is a pickle, and a pickle may call any function. ``torch.load(weights_only=True)`` interprets the
pickle itself and builds only what an allow-list names. Megatron-LM's training state needs a little more than tensors:
the argument namespace, numpy's random state, and a few classes of Megatron-LM's own that stay behind.
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

# What files of torch.save name beside the list below; read as far as torch knows it.
_OF_TORCH = re.compile(
    r"torch\.(\w*Storage|storage\.\w*Storage|_utils\._rebuild\w*|_tensor\._rebuild\w*|nn\.parameter\.Parameter"
    r"|Tensor|Size|device|[a-z]+\d\w*|bool|half|float|double|short|int|long)|collections\.(OrderedDict|Counter)"
)

# Classes of Megatron-LM whose objects are pickled with a checkpoint: the loss scale of fp16 training before apex's
# optimizer gave way to torch's (2019 and 2020), and the kind of model in the arguments (from 2021).
_STOOD_IN_FOR = (
    "fp16.loss_scaler.LossScaler",
    "fp16.loss_scaler.DynamicLossScaler",
    "megatron.fp16.loss_scaler.LossScaler",
    "megatron.fp16.loss_scaler.DynamicLossScaler",
    "megatron.enums.ModelType",
    "megatron.model.enums.ModelType",
    "megatron.core.enums.ModelType",
)


class StandIn:
    """Takes the place of an object of Megatron-LM's classes: it keeps nothing of it and does nothing."""

    def __new__(cls, *values: object) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __repr__(self) -> str:
        return "an object of Megatron-LM's own"


def _allowed() -> list[Callable[..., Any] | _Named]:
    """What a training checkpoint may name beyond torch's own list (tensors, dtypes, OrderedDict and the like)."""
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
        # numpy 2 renamed numpy.core to numpy._core; files of either age must load.
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    numbers = (np.uint8, np.int8, np.uint32, np.int32, np.uint64, np.int64, np.float32, np.float64, np.bool_)
    allowed += [type(np.dtype(number)) for number in numbers]
    allowed += [(StandIn, name) for name in _STOOD_IN_FOR]
    return allowed


def load_checkpoint_file(path: str | Path) -> Any:
    """Load a ``.pt`` or ``.bin`` file, zip or legacy form, onto the CPU; zip files are memory-mapped.

    Raises:
        CheckpointError: the file is missing, truncated, no PyTorch file, or names something outside the allow-list
            (the message has that name; nothing of the file ran).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            # torch.save writes protocol 2. Others end in an error below; the warning before it adds nothing.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what a damaged pickle makes the reader raise has no common base
        raise CheckpointError(f"{path}: {_explain(error, path)}") from error


def _explain(error: Exception, path: Path) -> str:
    text = str(error)
    content = read_pickle_names(path)
    offending = next((name for name in content.names if not _harmless(name)), None)
    refused = _REFUSED.search(text)
    if refused or (offending and isinstance(error, pickle.UnpicklingError)):
        name = offending or (refused.group(1) if refused else "")
        return f"refused, because its pickle names {name}, which a checkpoint has no need of; nothing ran"
    if "Unsupported operand" in text and content.complete:
        return (
            f"refused: written with pickle protocol {content.protocol}, where torch.save's own is 2; save it again"
            " with torch.save"
        )
    detail = text.split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
    return f"truncated or not a PyTorch checkpoint ({type(error).__name__}: {detail[:160]})"


def _harmless(name: str) -> bool:
    """Whether a name is on the list above, or one of torch's own that files of torch.save have."""
    ours = {
        entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in _allowed()
    }
    return name in ours or _OF_TORCH.fullmatch(name) is not None
