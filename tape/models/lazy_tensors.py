"""Lazily loaded tensors, and a writer of safetensors files that loads one tensor at a time.

Converting a model takes only as much memory as its largest tensor. The library's own writer needs all tensors at once.
The file format is that of the safetensors library, which can read these files: 8 bytes with the length of the header,
a JSON header, and the bytes of the tensors, all little endian.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tape.errors import CheckpointError
from tape.io.json_files import RepeatedKeyError, parse_json

SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8
_LENGTH_BYTES = 8
_LARGEST_HEADER = 100_000_000  # bytes, the limit of the library


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is loaded when it is needed.

    Attributes:
        shape, dtype: shape and data type of the tensor.
        load: returns the tensor on the CPU; a tensor in a file is read again by every call.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> LazyTensor:
        """Wrap a tensor that is in memory already."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def stored_bytes(content: object) -> int:
    """Bytes of all tensors, also lazy ones, in nested dictionaries and lists: about the size of a file with them."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, LazyTensor):
        return content.bytes
    if isinstance(content, Mapping):
        return sum(map(stored_bytes, content.values()))
    return sum(map(stored_bytes, content)) if isinstance(content, list | tuple) else 0


LazyState = dict[str, LazyTensor]  # a state dict that is loaded tensor by tensor


class Writable(Protocol):
    """What tensors are written to: a file, or a stream that also hashes."""

    def write(self, data: Any, /) -> int: ...


def check_safetensors_header(file: Path) -> None:
    """Refuse a safetensors file that has two tensors of one name; the library returns the last of them.

    All other errors are left to the library.

    Raises:
        CheckpointError: names the file and the tensor.
    """
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            parse_json(stream.read(min(size, _LARGEST_HEADER)))
    except RepeatedKeyError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except (OSError, ValueError, RecursionError):
        return


def safetensors_metadata(file: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors; empty if nothing, or if it can't be read."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            header = parse_json(stream.read(min(size, _LARGEST_HEADER)))
    except (OSError, ValueError, RecursionError):
        return {}
    found = header.get("__metadata__") if isinstance(header, dict) else None
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def write_safetensors(
    stream: Writable, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``tensors`` to ``stream``, loading one after the other.

    Args:
        stream: the file.
        tensors: the tensors by name.
        metadata: what the header has beside them.

    Raises:
        CheckpointError: the format has no such data type, or a loaded tensor does not have the declared shape and type.
    """
    # Wide types come first, so that every tensor starts at a multiple of its item size.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    stream.write(_header(ordered, metadata or {}))
    for name, lazy in ordered:
        tensor = lazy.load().detach().cpu().contiguous()
        if tuple(tensor.shape) != lazy.shape or tensor.dtype != lazy.dtype:
            raise CheckpointError(
                f"{name}: declared as {lazy.dtype} {lazy.shape}, but is {tensor.dtype} {tuple(tensor.shape)}"
            )
        stream.write(_little_endian(tensor.reshape(-1)).view(torch.uint8).numpy().data)


def _header(ordered: list[tuple[str, LazyTensor]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name, lazy in ordered:
        if lazy.dtype not in SAFETENSORS_DTYPES:
            raise CheckpointError(f"{name}: {lazy.dtype} can't be written as safetensors; choose a .bin file")
        start, end = end, end + lazy.bytes
        kind = SAFETENSORS_DTYPES[lazy.dtype]
        header[name] = {"dtype": kind, "shape": list(lazy.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _little_endian(flat: Tensor) -> Tensor:
    if sys.byteorder == "little" or flat.dtype.itemsize == 1:
        return flat
    return flat.view(torch.uint8).view(-1, flat.dtype.itemsize).flip(1).reshape(-1)
