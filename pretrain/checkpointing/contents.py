"""A checkpoint's model, tensor by tensor: where each rank's part lies, and how one tensor is gathered alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from tape.errors import CheckpointError

from .format import MODEL_PREFIX
from .index import IndexReader
from .loading import fill_tensors


@dataclass(frozen=True)
class StoredPart:
    """A rectangle of a tensor, as one rank wrote it.

    Attributes:
        offsets, sizes: its place in the whole tensor.
        file, start, length: the bytes that ``torch.save`` wrote of it.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    length: int

    def load(self) -> Tensor:
        """The part, read from its own bytes.

        Raises:
            CheckpointError: damaged, or not what the index says. Names the file.
        """
        try:
            with self.file.open("rb") as stream:
                stream.seek(self.start)
                content = io.BytesIO(stream.read(self.length))
            tensor: Any = torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # what a damaged pickle makes the reader raise has no common base
            raise CheckpointError(f"{self.file}: damaged at byte {self.start} ({type(error).__name__})") from error
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != self.sizes:
            raise CheckpointError(f"{self.file}: byte {self.start} doesn't hold a tensor of shape {self.sizes}")
        return tensor.detach()


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the model and the parts that make it up."""

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: tuple[StoredPart, ...]

    def gather(self) -> Tensor:
        """The whole tensor, put together by torch.distributed.checkpoint."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        fill_tensors({MODEL_PREFIX + self.name: tensor}, self.path, alone=True)
        return tensor


def model_tensors(path: Path) -> dict[str, StoredTensor]:
    """The model's tensors by name; nothing but the index is read.

    Args:
        path: one ``iter_...`` directory.

    Raises:
        CheckpointError: a damaged index, or parts that don't make up a tensor.
    """
    index = IndexReader(path).read_metadata()
    places = {(key.fqn, tuple(key.offset or ())): info for key, info in (index.storage_data or {}).items()}
    tensors = {}
    for fqn, entry in index.state_dict_metadata.items():
        if not fqn.startswith(MODEL_PREFIX) or not isinstance(entry, TensorStorageMetadata):
            continue
        name = fqn.removeprefix(MODEL_PREFIX)
        parts = tuple(_part(path, fqn, tuple(chunk.offsets), tuple(chunk.sizes), places) for chunk in entry.chunks)
        if sum(torch.Size(part.sizes).numel() for part in parts) != entry.size.numel():
            raise CheckpointError(f"{path}: the parts of {name} don't make up its shape {tuple(entry.size)}")
        tensors[name] = StoredTensor(name, path, tuple(entry.size), entry.properties.dtype, parts)
    return tensors


def _part(
    path: Path,
    fqn: str,
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    places: Mapping[tuple[str, tuple[int, ...]], Any],
) -> StoredPart:
    info = places.get((fqn, offsets))
    if info is None or Path(info.relative_path).name != info.relative_path:
        raise CheckpointError(f"{path}: the index doesn't say in which file {fqn} at {offsets} lies")
    return StoredPart(offsets, sizes, path / info.relative_path, info.offset, info.length)
