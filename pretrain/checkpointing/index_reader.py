"""A checkpoint's model, tensor by tensor: where each rank's part lies, and how one tensor is gathered alone."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from tape.errors import CheckpointError

from .collective_errors import reason_of
from .format import INDEX_NAME, MODEL_PREFIX, OPTIMIZER_PREFIX


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


def named_tensors(model: nn.Module, optimizer_state: dict[str, Tensor]) -> dict[str, Any]:
    """All tensors of a checkpoint by name; reading fills these very tensors."""
    return {
        **{MODEL_PREFIX + name: value for name, value in model.state_dict().items()},
        **{OPTIMIZER_PREFIX + name: value for name, value in optimizer_state.items()},
    }


SINGLE_PROCESS_WARNING = "torch.distributed is disabled, unavailable or uninitialized"


@contextmanager
def without_single_process_warning() -> Iterator[None]:
    """One process is a normal way to run; torch warns of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=SINGLE_PROCESS_WARNING)
        yield


class IndexReader(dcp.FileSystemReader):
    """torch's reader, with its pickled index read by an unpickler that knows the index's own classes only."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        file = Path(self.path) / INDEX_NAME
        try:
            with file.open("rb") as stream:
                metadata = _IndexUnpickler(stream).load()
        except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{file}: damaged ({error})") from error
        if not isinstance(metadata, Metadata):
            raise CheckpointError(f"{file}: damaged (holds a {type(metadata).__name__})")
        others = [
            name for name, entry in metadata.state_dict_metadata.items() if not isinstance(entry, TensorStorageMetadata)
        ]
        if others:
            raise CheckpointError(f"{file}: {others[0]} is no tensor; such entries are pickles and are not read")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _IndexUnpickler(pickle.Unpickler):
    """Refuses every class that an index of tensors doesn't need."""

    _ALLOWED = {
        "torch.serialization": {"_get_layout"},
        "torch.distributed.checkpoint.metadata": {
            "_MEM_FORMAT_ENCODING",
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
        },
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "collections": {"OrderedDict"},
        "pathlib": {"PosixPath", "WindowsPath"},
    }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch":  # element types and sizes
            found = getattr(torch, name, None)
            if isinstance(found, torch.dtype) or found is torch.Size:
                return found
        elif name in self._ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into an index")


def fill_tensors(tensors: dict[str, Any], path: Path, alone: bool) -> None:
    """Read the named tensors in place."""
    try:
        with without_single_process_warning():
            dcp.load(tensors, storage_reader=IndexReader(path), no_dist=alone)
    except (CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {reason_of(error)}") from error
