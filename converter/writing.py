"""Writes a mapped model in the target's format, in one data type, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converter.formats.base import Source, Target
from tape.errors import CheckpointError
from tape.models.lazy_tensors import LazyState, LazyTensor
from tape.runtime.progress import progress_bar


def write_model(
    target: Target, folder: Path, state: LazyState, source: Source, origin: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """Write all files of the result except the conversion record.

    Args:
        target: the format to write.
        folder: an empty directory.
        state: state dict of ``ProteinBertForMaskedLM`` or of its encoder.
        source: the model that is converted.
        origin: its provenance.
        dtype: data type to write.

    Raises:
        CheckpointError: if a value is not finite in ``dtype``; the message names the tensor.
    """
    with progress_bar("writing", sum(tensor.bytes for tensor in state.values()), "B") as bar:
        counted: set[str] = set()  # some formats load a tensor once per rank

        def count(name: str) -> None:
            if name not in counted:
                counted.add(name)
                bar.update(state[name].bytes)

        finished = {name: _finished(name, tensor, dtype, source.path, count) for name, tensor in state.items()}
        target.write(folder, finished, source.config, origin)


def _finished(
    name: str, tensor: LazyTensor, dtype: torch.dtype, path: Path, count: Callable[[str], None]
) -> LazyTensor:
    """The tensor in the data type to write; loading it raises CheckpointError if a value is not finite."""

    def load() -> Tensor:
        cast = tensor.load().to(dtype)
        if not bool(torch.isfinite(cast).all()):
            raise CheckpointError(f"{path}: {name} has values that are not finite as {dtype}")
        count(name)
        return cast

    return LazyTensor(tensor.shape, dtype, load)
