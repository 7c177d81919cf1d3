"""Reads ``.pt`` files of other people without running anything that they contain.

A PyTorch checkpoint is a pickle, and a pickle may call any function. ``torch.load(weights_only=True)`` interprets the
pickle itself and builds only what an allow-list names. Megatron-LM's training state needs a little more than tensors:
the argument namespace and numpy's random state.
"""

from __future__ import annotations

import argparse
import codecs
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tape.errors import CheckpointError

_Named = tuple[Callable[..., Any], str]
_REFUSED = re.compile(r"(?:GLOBAL|[Uu]nsupported class)\s+([A-Za-z_][\w.]*)")


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
        raise CheckpointError(f"{path}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    text = str(error)
    refused = _REFUSED.search(text)
    if refused:
        return f"refused, because its pickle names {refused.group(1)}, which a checkpoint has no need of; nothing ran"
    if "Unsupported operand" in text:
        return (
            "refused: no PyTorch checkpoint, or written with a pickle protocol other than torch.save's own; save it"
            " again with torch.save"
        )
    detail = text.split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
    return f"truncated or not a PyTorch checkpoint ({type(error).__name__}: {detail[:160]})"
