"""Reads a checkpoint's index (torch.distributed.checkpoint's ``.metadata``), and tensors by it.

The index records each tensor's shape and, per shard, the file and the bytes in which a rank has written it. Single
tensors and single shards can be read without loading the rest.
"""

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
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from tape.errors import CheckpointError

from .collective_errors import error_message
from .format import INDEX_NAME, MODEL_PREFIX


@dataclass(frozen=True)
class StoredShard:
    """A rectangular shard of a tensor, written by one rank.

    Attributes:
        offsets, sizes: its position in the full tensor and its shape.
        file, start, length: the bytes that ``torch.save`` wrote for it.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    length: int

    def load(self) -> Tensor:
        """Read the shard alone.

        Raises:
            CheckpointError: it is damaged, or does not match the index. Names the file.
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
    """A tensor of the model and its shards."""

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    shards: tuple[StoredShard, ...]

    def gather(self) -> Tensor:
        """The full tensor, assembled from its shards by torch.distributed.checkpoint."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        load_tensors({MODEL_PREFIX + self.name: tensor}, self.path, single_process=True)
        return tensor


def model_tensors(path: Path) -> dict[str, StoredTensor]:
    """The model's tensors by name. Reads the index only.

    Args:
        path: one ``iter_...`` directory.

    Raises:
        CheckpointError: the index is damaged, or a tensor's shards don't cover it.
    """
    index = IndexReader(path).read_metadata()
    places = {(key.fqn, tuple(key.offset or ())): info for key, info in (index.storage_data or {}).items()}
    tensors = {}
    for fqn, entry in index.state_dict_metadata.items():
        if not fqn.startswith(MODEL_PREFIX) or not isinstance(entry, TensorStorageMetadata):
            continue
        name = fqn.removeprefix(MODEL_PREFIX)
        shards = tuple(_shard(path, fqn, tuple(chunk.offsets), tuple(chunk.sizes), places) for chunk in entry.chunks)
        if sum(torch.Size(shard.sizes).numel() for shard in shards) != entry.size.numel():
            raise CheckpointError(f"{path}: the shards of {name} don't cover its shape {tuple(entry.size)}")
        tensors[name] = StoredTensor(name, path, tuple(entry.size), entry.properties.dtype, shards)
    return tensors


def _shard(
    path: Path,
    fqn: str,
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    places: Mapping[tuple[str, tuple[int, ...]], Any],
) -> StoredShard:
    info = places.get((fqn, offsets))
    if info is None or Path(info.relative_path).name != info.relative_path:
        raise CheckpointError(f"{path}: the index has no file for the shard of {fqn} at {offsets}")
    return StoredShard(offsets, sizes, path / info.relative_path, info.offset, info.length)


SINGLE_PROCESS_WARNING = "torch.distributed is disabled, unavailable or uninitialized"


@contextmanager
def without_single_process_warning() -> Iterator[None]:
    """Suppress torch's warning that a checkpoint is saved or loaded by one process, which is nothing unusual here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=SINGLE_PROCESS_WARNING)
        yield


class IndexReader(dcp.FileSystemReader):
    """torch's FileSystemReader, which reads the pickled index with an unpickler that admits its own classes only."""

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
            raise CheckpointError(f"{file}: {others[0]} is not a tensor; other entries are pickles and are not read")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _IndexUnpickler(pickle.Unpickler):
    """Refuses every class that is not needed for an index of tensors."""

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
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in an index")


def load_tensors(tensors: dict[str, Any], path: Path, single_process: bool) -> None:
    """Load the tensors of these names in place, resharded from the checkpoint's layout to theirs.

    Args:
        tensors: by their names in the checkpoint; DTensors are filled with this rank's shard.
        path: one ``iter_...`` directory.
        single_process: whether this process loads without the others.

    Raises:
        CheckpointError: the checkpoint can't be read.
    """
    try:
        with without_single_process_warning():
            dcp.load(tensors, storage_reader=IndexReader(path), no_dist=single_process)
    except (CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error_message(error)}") from error
