"""Reads the pickled index of a checkpoint (torch.distributed.checkpoint's ``.metadata``) as untrusted data.

The index consists of objects of torch's classes. Here each is built from checked fields; see
:mod:`tape.io.restricted_pickle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from tape.io.restricted_pickle import (
    PLAIN_DATA,
    PickleTypes,
    RefusedPickleError,
    RestrictedUnpickler,
    Unfinished,
    constructors,
    is_size,
    refuse_arguments,
)
from tape.models.torch_files import SHAPE_TYPES

Check = Callable[[Any], bool]
_PLANNER = "torch.distributed.checkpoint.planner"
_MODULE = "torch.distributed.checkpoint.metadata"
_MEMORY_FORMAT = f"{_MODULE}._MEM_FORMAT_ENCODING"
_WRITE_ITEM_TYPE = f"{_PLANNER}.WriteItemType"


def _is(*kinds: type) -> Check:
    return lambda value: isinstance(value, kinds)


def _list_of(kind: type) -> Check:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _dict_of(key: type, *kinds: type) -> Check:
    return lambda value: (
        isinstance(value, dict) and all(isinstance(name, key) and isinstance(value[name], kinds) for name in value)
    )


def _plain_data(value: object) -> bool:
    """Whatever the reader of pickles lets through."""
    return True


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and Path(value).name == value


_is_shape = _is(torch.Size)
_is_text = _is(str)

# Class -> field -> whether a value is allowed. Fields that are absent keep their defaults.
_FIELDS: dict[type, Mapping[str, Check]] = {
    ChunkStorageMetadata: {"offsets": _is_shape, "sizes": _is_shape},
    TensorStorageMetadata: {
        "properties": _is(TensorProperties),
        "size": _is_shape,
        "chunks": _list_of(ChunkStorageMetadata),
    },
    MetadataIndex: {"fqn": _is_text, "offset": _or_none(_is_shape), "index": _or_none(is_size)},
    StorageMeta: {
        "checkpoint_id": _or_none(_is_text),
        "save_id": _or_none(_is_text),
        "load_id": _or_none(_is_text),
        "modules": _list_of(str),
    },
    _StorageInfo: {
        "relative_path": _is_file_name,
        "offset": is_size,
        "length": is_size,
        "transform_descriptors": lambda value: not value,  # nothing is compressed
    },
    Metadata: {
        "state_dict_metadata": _dict_of(str, TensorStorageMetadata, BytesStorageMetadata),
        "planner_data": _plain_data,
        "storage_data": _or_none(_dict_of(MetadataIndex, _StorageInfo)),
        "storage_meta": _or_none(_is(StorageMeta)),
        "version": _or_none(_is_text),
    },
}


# attributes that Megatron Core adds to the index
_IGNORED_FIELDS: dict[type, frozenset[str]] = {Metadata: frozenset({"all_local_plans", "mcore_data"})}


class _Object(Unfinished):
    """An instance of one of these classes, whose fields are its state."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def finish(self, state: Any) -> Any:
        checks, ignored = _FIELDS[self._kind], _IGNORED_FIELDS.get(self._kind, frozenset())
        if isinstance(state, dict):
            state = {name: value for name, value in state.items() if name not in ignored}
        if not isinstance(state, dict) or not all(name in checks and checks[name](state[name]) for name in state):
            raise refuse_arguments(self._kind.__name__, state)
        try:
            return self._kind(**state)
        except TypeError as error:
            raise RefusedPickleError(f"{self._kind.__name__} lacks fields: it has {sorted(state)}") from error


class _Properties(Unfinished):
    """Properties of a tensor, of which only the data type matters here."""

    def finish(self, state: Any) -> TensorProperties:
        match state:
            case (torch.dtype() as dtype, torch.layout(), bool(), torch.memory_format(), bool()):
                return TensorProperties(dtype=dtype)
        raise refuse_arguments("TensorProperties", state)


class _Discarded(Unfinished):
    """A part of the plan by which ranks have written a checkpoint, which reading does not need."""

    def finish(self, state: Any) -> None:
        return None


def _discarded_enum(value: object) -> None:
    return None


def _memory_format(number: object) -> torch.memory_format:
    if number != _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT.value:
        raise refuse_arguments("the memory format", number)
    return torch.contiguous_format


def _enum_member(enum: object, name: object) -> torch.memory_format | None:
    """What Python 3.11.0 to 3.11.3 pickles for a member of an enumeration: its class and name. Nothing is looked up."""
    if enum is INDEX_TYPES.names[_MEMORY_FORMAT] and name == _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT.name:
        return torch.contiguous_format
    if enum is INDEX_TYPES.names[_WRITE_ITEM_TYPE] and isinstance(name, str):
        return None
    raise refuse_arguments("a member of an enumeration", name)


def _path(*parts: object) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise refuse_arguments("a path", parts)
    return str(Path(*map(str, parts)))


def _fields(instance: object) -> list[Any]:
    return list(vars(instance).values())


_PATHS = [f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")]
INDEX_TYPES = (
    PLAIN_DATA
    | SHAPE_TYPES
    | PickleTypes(
        names=constructors(
            [
                *((f"{kind.__module__}.{kind.__name__}", partial(_Object, kind)) for kind in _FIELDS),
                (f"{_MODULE}.BytesStorageMetadata", lambda: BytesStorageMetadata()),  # pickled without a state
                (f"{_MODULE}.TensorProperties", _Properties),
                (_MEMORY_FORMAT, _memory_format),
                *((name, _path) for name in _PATHS),
                *((f"{_PLANNER}.{name}", _Discarded) for name in ("SavePlan", "WriteItem", "TensorWriteData")),
                (_WRITE_ITEM_TYPE, _discarded_enum),
                ("builtins.getattr", _enum_member),
            ]
        ),
        values=frozenset({*_FIELDS, BytesStorageMetadata, TensorProperties, torch.memory_format} - {Metadata}),
        contents={Metadata: _fields},
        keys=frozenset({MetadataIndex}),
    )
)


def load_index(data: bytes) -> Metadata:
    """The index of a checkpoint.

    Raises:
        RefusedPickleError: it is damaged, or anything else than an index of tensors.
    """
    metadata = RestrictedUnpickler(data, INDEX_TYPES).load()
    if not isinstance(metadata, Metadata):
        raise RefusedPickleError(f"it holds a {type(metadata).__name__} instead of an index")
    return metadata
