"""Reads files of ``torch.save`` from untrusted sources.

Their pickles are interpreted by :mod:`tape.io.restricted_pickle`, and tensors are built only after offset, shape and
strides were compared with the bytes in the file. ``torch.load(weights_only=True)`` calls functions that trust their
arguments: a file of 200 bytes makes it allocate a terabyte, and codecs are chosen by the file.

Two formats are read, with pickles of any protocol: zip files (torch 1.6 and later), and the older one, a sequence of
pickles followed by the numbers, which has no checksums.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from tape.errors import CheckpointError, quoted
from tape.io.restricted_pickle import (
    PLAIN_DATA,
    Constructor,
    ForbiddenNameError,
    Name,
    PickleTypes,
    RefusedPickleError,
    RestrictedUnpickler,
    constructors,
    is_size,
    keys_and_values,
    refuse_arguments,
)
from tape.io.zip_files import ZIP_ERRORS

_PICKLE_NAME = "data.pkl"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
_LOCAL_SIGNATURE = b"PK\x03\x04"
_CHUNK_BYTES = 1 << 24
_MOST_DIMENSIONS = 64
_MOST_ELEMENTS = 1 << 62
_EXPANDED_BYTES = 1 << 24  # a tensor with strides of 0 may be this much larger than its storage
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_DEVICE = re.compile(r"[a-z]{2,12}(:\d{1,2})?")


@dataclass(frozen=True, eq=False)
class _StorageType(Name):
    """``torch.FloatStorage`` and the like."""

    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class _Storage:
    """The numbers of one or several tensors."""

    dtype: torch.dtype
    numbers: torch.UntypedStorage


_STORAGE_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}


def _tensor(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
) -> Tensor:
    """``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2``; gradients and hooks are dropped."""
    if not isinstance(storage, _Storage) or metadata:
        raise refuse_arguments("a tensor", (storage, metadata))
    return _view(storage, storage.dtype, offset, size, stride)


def _typed_tensor(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
) -> Tensor:
    """``torch._utils._rebuild_tensor_v3``, for data types without a class of storages."""
    if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype) or metadata:
        raise refuse_arguments("a tensor", (storage, dtype, metadata))
    return _view(storage, dtype, offset, size, stride)


def _view(storage: _Storage, dtype: torch.dtype, offset: Any, size: Any, stride: Any) -> Tensor:
    """A tensor of a storage, all of whose elements are in it."""
    for lengths in (size, stride):
        if not isinstance(lengths, tuple) or len(lengths) > _MOST_DIMENSIONS or not all(map(is_size, lengths)):
            raise refuse_arguments("a tensor", lengths)
    if len(size) != len(stride) or not is_size(offset):
        raise refuse_arguments("a tensor", (offset, len(size), len(stride)))
    stored = storage.numbers.nbytes() // dtype.itemsize
    elements = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if elements else 0
    allowed = max(stored, _EXPANDED_BYTES // dtype.itemsize)
    if last >= max(stored, 1) or elements > allowed or math.prod(max(n, 1) for n in size) > _MOST_ELEMENTS:
        raise RefusedPickleError(f"a tensor of shape {quoted(size)} at {offset} is not within its {stored} numbers")
    return torch.empty(0, dtype=dtype).set_(storage.numbers, offset if elements else 0, size, stride)


def _parameter(data: object, *others: object) -> Tensor:
    """``torch._utils._rebuild_parameter``, also with a state; the parameter is a plain tensor."""
    if not isinstance(data, Tensor) or len(others) not in (2, 3):
        raise refuse_arguments("a parameter", (data, *others))
    return data


def _with_attributes(function: object, kind: object, arguments: object, state: object) -> Tensor:
    """``torch._tensor._rebuild_from_type_v2``: a tensor to which somebody gave attributes, which are dropped."""
    if not isinstance(function, Constructor) or not isinstance(arguments, tuple):
        raise refuse_arguments("a tensor with attributes", (function, arguments))
    if not isinstance(kind, Name) or kind.name not in _TENSOR_CLASSES or function.name not in _REBUILDS:
        raise refuse_arguments("a tensor with attributes", (function, kind))
    return _REBUILDS[function.name](*arguments)


def _shape(values: object = ()) -> torch.Size:
    if not isinstance(values, (tuple, list)) or not all(map(is_size, values)):
        raise refuse_arguments("torch.Size", values)
    return torch.Size(values)


def _device(name: object, index: object = None) -> torch.device:
    if not isinstance(name, str) or not _DEVICE.fullmatch(name) or not (index is None or is_size(index)):
        raise refuse_arguments("torch.device", (name, index))
    return torch.device(name) if index is None else torch.device(f"{name}:{index}")


def _layout(name: object) -> torch.layout:
    if name != "torch.strided":
        raise refuse_arguments("torch's layout", name)
    return torch.strided


def _counter(counts: object = None) -> Counter[Any]:
    if counts is not None and not isinstance(counts, dict):
        raise refuse_arguments("Counter", counts)
    return Counter(counts)


_REBUILDS: Mapping[str, Callable[..., Tensor]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")
_DTYPES = {name: found for name, found in vars(torch).items() if isinstance(found, torch.dtype)}

# Shapes, data types and the like, without tensors
SHAPE_TYPES = PickleTypes(
    names={
        **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
        **constructors([("torch.Size", _shape), ("torch.serialization._get_layout", _layout)]),
    },
    values=frozenset({torch.Size, torch.dtype, torch.layout}),
    keys=frozenset({torch.dtype}),
)

TORCH_TYPES = (
    PLAIN_DATA
    | SHAPE_TYPES
    | PickleTypes(
        names={
            **{name: Name(name) for name in _TENSOR_CLASSES},
            **{
                name: _StorageType(name, dtype)
                for kind, dtype in _STORAGE_DTYPES.items()
                for name in (f"torch.{kind}Storage", f"torch.storage.{kind}Storage")
            },
            **{
                name: _StorageType(name, torch.uint8)
                for name in ("torch.UntypedStorage", "torch.storage.UntypedStorage", "torch.storage._UntypedStorage")
            },
            **constructors(
                [
                    *_REBUILDS.items(),
                    ("torch._tensor._rebuild_from_type_v2", _with_attributes),
                    ("torch.device", _device),
                    ("collections.Counter", _counter),
                ]
            ),
        },
        values=frozenset({Tensor, torch.device}),
        contents={Counter: keys_and_values},
    )
)


def load_torch_file(path: Path, types: PickleTypes = TORCH_TYPES, *, mapped: bool = False) -> Any:
    """Load a file of ``torch.save`` onto the CPU.

    Args:
        path: the file.
        types: what it may contain.
        mapped: memory-map the numbers of a zip file; the tensors must not outlive a change of the file.

    Returns:
        Its content. Parameters are plain tensors; attributes of tensors and dictionaries are dropped.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but the allowed types, in which case nothing
            was executed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    try:
        with path.open("rb") as stream:
            return load_torch_stream(stream, types, mapped=path if mapped else None)
    except ForbiddenNameError as error:
        raise CheckpointError(
            f"{path}: refused: its pickle refers to {error.name}, which a checkpoint does not need; nothing was"
            " executed. If you trust it, save it again without this object, by the program that wrote it"
        ) from error
    except RefusedPickleError as error:
        raise CheckpointError(f"{path}: refused or damaged, or not a PyTorch checkpoint: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def load_torch_stream(stream: IO[bytes], types: PickleTypes = TORCH_TYPES, *, mapped: Path | None = None) -> Any:
    """Load what ``torch.save`` wrote from a stream, see :func:`load_torch_file`.

    Args:
        stream: a binary stream that can seek, at its beginning.
        types: what it may contain.
        mapped: the file of the stream, to be memory-mapped if it is a zip file.

    Raises:
        RefusedPickleError: it is damaged, or holds anything but the allowed types.
        MemoryError: it can't be mapped.
    """
    if stream.read(len(_LOCAL_SIGNATURE)) != _LOCAL_SIGNATURE:
        return _LegacyReader(stream, types).load()
    try:
        with zipfile.ZipFile(stream) as archive:
            return _ZipReader(archive, stream, mapped).load(types)
    except RefusedPickleError:
        raise
    except ZIP_ERRORS as error:
        if os.strerror(errno.ENOMEM) in str(error):  # torch's error of mmap(2)
            raise MemoryError(str(error)) from error
        raise RefusedPickleError(f"the zip file is damaged ({type(error).__name__}: {str(error)[:200]})") from error


def _storage_arguments(identifier: Any) -> tuple[_StorageType, str, int]:
    """Type, key and number of bytes of a storage from a persistent id, the only kind of which torch.save writes."""
    match identifier:
        case ("storage", _StorageType() as kind, str(key), str(), numel) | (
            "storage",
            _StorageType() as kind,
            str(key),
            str(),
            numel,
            None,
        ) if is_size(numel):
            return kind, key, numel * kind.dtype.itemsize
    raise refuse_arguments("a storage", identifier)


class _ZipReader:
    """The zip format: ``data.pkl``, and a record per storage in ``data/``; nothing is compressed.

    The CRCs of the storages are not compared, see :func:`tape.io.zip_files.verify_crcs`.
    """

    def __init__(self, archive: zipfile.ZipFile, stream: IO[bytes], mapped: Path | None) -> None:
        self._archive, self._stream = archive, stream
        self._size = stream.seek(0, 2)
        self._left = self._size  # bytes of storages; records that overlap could have any number
        self._map = torch.UntypedStorage.from_file(str(mapped), False, self._size) if mapped else None
        self._records = {info.filename: info for info in archive.infolist()}
        self._storages: dict[str, _Storage] = {}

    def load(self, types: PickleTypes) -> Any:
        if len(self._records) != len(self._archive.infolist()):
            raise RefusedPickleError("two records have one name, so that programs may read different ones")
        names = [name for name in self._records if name.rpartition("/")[2] == _PICKLE_NAME]
        if len(names) != 1:
            raise RefusedPickleError(f"a zip file without {_PICKLE_NAME}, which torch.save writes")
        self._folder = names[0].removesuffix(_PICKLE_NAME)
        if f"{self._folder}constants.pkl" in self._records:
            raise RefusedPickleError("a TorchScript program instead of a checkpoint; save its state_dict()")
        order = self._records.get(f"{self._folder}byteorder")
        if order is not None and self._archive.read(self._checked(order)) != b"little":
            raise RefusedPickleError("written on a machine with another byte order")
        return RestrictedUnpickler(
            self._archive.read(self._checked(self._records[names[0]])), types, self._storage
        ).load()

    def _checked(self, record: zipfile.ZipInfo) -> zipfile.ZipInfo:
        if (
            record.compress_type != zipfile.ZIP_STORED
            or not 0 <= record.file_size == record.compress_size <= self._size
        ):
            raise RefusedPickleError(f"record {quoted(record.filename)} is compressed, or larger than the file")
        return record

    def _storage(self, identifier: Any) -> _Storage:
        kind, key, nbytes = _storage_arguments(identifier)
        if key not in self._storages:
            self._storages[key] = _Storage(kind.dtype, self._numbers(key, nbytes, kind.dtype.itemsize))
        return self._same_type(key, kind)

    def _same_type(self, key: str, kind: _StorageType) -> _Storage:
        found = self._storages[key]
        return found if found.dtype == kind.dtype else _Storage(kind.dtype, found.numbers)

    def _numbers(self, key: str, nbytes: int, alignment: int) -> torch.UntypedStorage:
        if not nbytes:
            return torch.UntypedStorage(0)
        record = self._records.get(f"{self._folder}data/{key}")
        if record is None or self._checked(record).file_size < nbytes or nbytes > self._left:
            raise RefusedPickleError(f"the file does not hold the {nbytes} bytes of storage {quoted(key)}")
        start = self._start(record)
        if start + nbytes > self._size:
            raise RefusedPickleError(f"record {quoted(record.filename)} ends beyond the file")
        self._left -= nbytes
        if self._map is None:
            self._stream.seek(start)
            return _read_storage(nbytes, self._stream)
        numbers = self._map[start : start + nbytes]
        return numbers.clone() if start % alignment else numbers

    def _start(self, record: zipfile.ZipInfo) -> int:
        """Position of a record's bytes, after its local header, whose length the directory doesn't have."""
        self._stream.seek(record.header_offset)
        signature, name, extra = _LOCAL_HEADER.unpack(self._stream.read(_LOCAL_HEADER.size))
        if signature != _LOCAL_SIGNATURE:
            raise RefusedPickleError(f"record {quoted(record.filename)} is not where the zip file's directory has it")
        return record.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _read_storage(nbytes: int, stream: IO[bytes]) -> torch.UntypedStorage:
    numbers = torch.empty(nbytes, dtype=torch.uint8)
    _fill(numbers, stream)
    return numbers.untyped_storage()


def _fill(numbers: Tensor, stream: IO[bytes]) -> None:
    """Read as many bytes as a tensor of bytes has."""
    target: Any = memoryview(numbers.numpy().data)
    start = 0
    while start < len(target):
        chunk = stream.read(min(_CHUNK_BYTES, len(target) - start))
        if not chunk:
            raise RefusedPickleError(f"truncated: {len(target) - start} bytes of a storage are missing")
        target[start : start + len(chunk)] = chunk
        start += len(chunk)


class _LegacyReader:
    """The format before torch 1.6: pickles of magic number, version, system, content and keys; then the storages."""

    def __init__(self, stream: IO[bytes], types: PickleTypes) -> None:
        self._stream = stream
        self._size = stream.seek(0, 2)
        self._types = types
        self._storages: dict[str, _Storage] = {}
        self._left = self._size

    def load(self) -> Any:
        self._stream.seek(0)
        try:
            data: bytes | mmap.mmap = mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # not a file
            data = self._stream.read()
        unpickler = RestrictedUnpickler(data, self._types, self._storage)
        for expected in (_LEGACY_MAGIC, _LEGACY_VERSION):
            found = unpickler.load()
            if not isinstance(found, int) or found != expected:  # a tensor can't be compared with the magic number
                raise RefusedPickleError("its first two pickles are not torch.save's magic number and version")
        system = unpickler.load()
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise RefusedPickleError("written on a machine with another byte order")
        content, keys = unpickler.load(), unpickler.load()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise RefusedPickleError("its list of storages is not a list of names")
        if len(keys) != len(self._storages) or set(keys) != set(self._storages):
            raise RefusedPickleError("its list of storages is not that of its tensors")
        self._stream.seek(unpickler.position)
        for key in keys:
            self._fill_storage(self._storages[key])
        return content

    def _storage(self, identifier: Any) -> _Storage:
        """Memory for a storage, which is read later."""
        kind, key, nbytes = _storage_arguments(identifier)
        if key not in self._storages:
            self._left -= nbytes
            if self._left < 0:
                raise RefusedPickleError(f"the file does not hold the {nbytes} bytes of storage {quoted(key)}")
            self._storages[key] = _Storage(kind.dtype, torch.UntypedStorage(nbytes))
        if self._storages[key].dtype != kind.dtype:
            raise RefusedPickleError(f"storage {quoted(key)} has two types")
        return self._storages[key]

    def _fill_storage(self, storage: _Storage) -> None:
        count = int.from_bytes(self._stream.read(8), "little")
        if count * storage.dtype.itemsize != storage.numbers.nbytes():
            raise RefusedPickleError("a storage has another length than its tensors need, or is missing")
        _fill(torch.empty(0, dtype=torch.uint8).set_(storage.numbers), self._stream)
