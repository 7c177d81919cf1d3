"""Reads a checkpoint's index (torch.distributed.checkpoint's ``.metadata``), and tensors by it.

The index records each tensor's shape and, per shard, the file and the bytes in which a rank has written it. Single
tensors and single shards can be read without loading the rest.
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.futures import Future

from tape.errors import CheckpointError, quoted
from tape.io.restricted_pickle import RefusedPickleError
from tape.io.zip_files import verify_stream_crcs
from tape.models.torch_files import load_torch_stream

from .collective_errors import error_message
from .format import INDEX_NAME, MODEL_PREFIX
from .index_pickle import load_index
from .shard_coverage import check_coverage

_LOCAL_LENGTHS = struct.Struct("<26xHH")  # of the name and the extra field, at the end of a zip record's local header


@dataclass(frozen=True)
class StoredShard:
    """A rectangular shard of a tensor, written by one rank.

    Attributes:
        offsets, sizes: its position in the full tensor and its shape.
        dtype: its data type.
        file, start, length: the bytes that ``torch.save`` wrote for it.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    start: int
    length: int

    def load(self) -> Tensor:
        """Read the shard alone, and compare it with its CRC-32, since other programs' checkpoints have no SHA-256.

        Raises:
            CheckpointError: it is damaged, or does not match the index. Names the file.
        """
        content = _read_bytes(self.file, self.start, self.length)
        tensor = _tensor_in(content, self.file, self.start, self.sizes)
        verify_stream_crcs(io.BytesIO(content), f"{self.file}, byte {self.start}")
        if tensor.dtype != self.dtype:
            raise CheckpointError(f"{self.file}: byte {self.start} holds {tensor.dtype}, not {self.dtype} as the index")
        return tensor

    def load_row(self, row: int) -> Tensor:
        """One row of the first dimension. The whole shard is read and verified for the first one alone.

        Raises:
            CheckpointError: as :meth:`load`.
        """
        start = _verified_start(self)
        if start is None:
            return self.load()[row]
        shape = self.sizes[1:]
        length = math.prod(shape) * self.dtype.itemsize
        content = _read_bytes(self.file, start + row * length, length)
        if len(content) < length:
            raise CheckpointError(f"{self.file}: truncated at byte {start + row * length}")
        return torch.frombuffer(bytearray(content), dtype=self.dtype).reshape(shape)


@lru_cache(maxsize=1 << 14)
def _verified_start(shard: StoredShard) -> int | None:
    """Position in the file of a shard's numbers, which are verified; None if they are not there as they are in memory.

    Raises:
        CheckpointError: as :meth:`StoredShard.load`.
    """
    numbers = shard.load().reshape(-1).view(torch.uint8)
    content = _read_bytes(shard.file, shard.start, shard.length)
    if not zipfile.is_zipfile(io.BytesIO(content)) or not numbers.numel():
        return None
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [record for record in archive.infolist() if record.file_size == numbers.numel()]
    for record in records:
        name, extra = _LOCAL_LENGTHS.unpack_from(content, record.header_offset)
        start = record.header_offset + _LOCAL_LENGTHS.size + int(name) + int(extra)
        found = torch.frombuffer(bytearray(content[start : start + numbers.numel()]), dtype=torch.uint8)
        if torch.equal(found, numbers):
            return shard.start + start
    return None


def _read_bytes(file: Path, start: int, length: int) -> bytes:
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            return stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file}: damaged at byte {start}: {error}") from error


def _tensor_in(content: bytes, file: Path, start: int, shape: Sequence[int]) -> Tensor:
    """The tensor of this shape that ``torch.save`` wrote in ``content``, a part of a file."""
    try:
        tensor = load_torch_stream(io.BytesIO(content))
    except (OSError, RefusedPickleError) as error:
        raise CheckpointError(f"{file}: damaged at byte {start}: {error}") from error
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{file}: byte {start} holds a {type(tensor).__name__} instead of a tensor")
    if tuple(tensor.shape) != tuple(shape):
        raise CheckpointError(f"{file}: byte {start} doesn't hold a tensor of shape {tuple(shape)}")
    return tensor


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
    return _stored_tensors(path, index, MODEL_PREFIX)


def tensors_and_others(path: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """All tensors of a directory of torch.distributed.checkpoint by name, whoever wrote it; and the other entries.

    The others are pickles, and are not read. Shards can be loaded, but :meth:`StoredTensor.gather` is for checkpoints
    of ``pretrain_tape.py``.

    Raises:
        CheckpointError: the index is damaged, or a tensor's shards don't cover it.
    """
    index = _read_index(path)
    tensors = _stored_tensors(path, index, "")
    return tensors, [name for name in index.state_dict_metadata if name not in tensors]


def _read_index(path: Path) -> Metadata:
    """The index of a directory, whose tensors are covered by their shards."""
    file = path / INDEX_NAME
    try:
        index = load_index(file.read_bytes())
    except (OSError, RefusedPickleError) as error:
        raise CheckpointError(f"{file}: refused or damaged: {error}") from error
    for name, entry in index.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            shards = [(chunk.offsets, chunk.sizes) for chunk in entry.chunks]
            check_coverage(f"{path}: {quoted(name)}", entry.size, shards)
    return index


def _stored_tensors(path: Path, index: Metadata, prefix: str) -> dict[str, StoredTensor]:
    places = {(key.fqn, tuple(key.offset or ())): info for key, info in (index.storage_data or {}).items()}
    tensors = {}
    for fqn, entry in index.state_dict_metadata.items():
        if not fqn.startswith(prefix) or not isinstance(entry, TensorStorageMetadata):
            continue
        name = fqn.removeprefix(prefix)
        dtype = entry.properties.dtype
        shards = tuple(
            _shard(path, fqn, tuple(chunk.offsets), tuple(chunk.sizes), dtype, places) for chunk in entry.chunks
        )
        tensors[name] = StoredTensor(name, path, tuple(entry.size), dtype, shards)
    return tensors


def _shard(
    path: Path,
    fqn: str,
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    places: Mapping[tuple[str, tuple[int, ...]], Any],
) -> StoredShard:
    info = places.get((fqn, offsets))
    if info is None or Path(info.relative_path).name != info.relative_path:
        raise CheckpointError(f"{path}: the index has no file for the shard of {fqn} at {offsets}")
    file = path / info.relative_path
    if not os.path.isfile(file):  # False for a name that no file can have
        raise CheckpointError(
            f"{path}: {quoted(info.relative_path)} is missing, but {INDEX_NAME} lists it: copy the whole directory"
            " again"
        )
    held = file.stat().st_size - info.offset
    if math.prod(sizes) * dtype.itemsize > min(info.length, held):  # before memory is allocated for it
        raise CheckpointError(f"{file}: too short for the shard of {fqn} at {offsets}, of shape {sizes} and {dtype}")
    return StoredShard(offsets, sizes, dtype, file, info.offset, info.length)


SINGLE_PROCESS_WARNING = "torch.distributed is disabled, unavailable or uninitialized"


@contextmanager
def without_single_process_warning() -> Iterator[None]:
    """Suppress torch's warning that a checkpoint is saved or loaded by one process, which is nothing unusual here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=SINGLE_PROCESS_WARNING)
        yield


class IndexReader(dcp.FileSystemReader):
    """torch's FileSystemReader, which reads the pickled index and the tensors as untrusted data."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = _read_index(Path(self.path))
        others = [
            name for name, entry in metadata.state_dict_metadata.items() if not isinstance(entry, TensorStorageMetadata)
        ]
        if others:
            file = Path(self.path) / INDEX_NAME
            raise CheckpointError(f"{file}: {others[0]} is not a tensor; other entries are pickles and are not read")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        super().set_up_storage_reader(metadata, is_coordinator, *args, **kwargs)
        self._shapes: dict[tuple[str, torch.Size | None], torch.Size] = {
            (name, chunk.offsets): chunk.sizes
            for name, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
            for chunk in entry.chunks
        }

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy the parts of tensors that ``plan`` lists into those of the planner."""
        for item in plan.items:
            index = item.storage_index
            info = self.storage_data[index]
            file = Path(self.path) / info.relative_path
            content = _read_bytes(file, info.offset, info.length)
            tensor = _tensor_in(content, file, info.offset, self._shapes[index.fqn, index.offset])
            part = tuple(
                slice(start, start + size) for start, size in zip(item.storage_offsets, item.lengths, strict=True)
            )
            target = planner.resolve_tensor(item).detach()
            target.copy_(tensor[part])
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done


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
