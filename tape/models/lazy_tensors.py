"""Tensors that are read when they are needed, and safetensors files written one tensor at a time.

A model of any size passes through the memory that its largest tensor takes. The file format is that of the safetensors
library (8 bytes with the header's length, a JSON header, the tensors' bytes, little endian), which reads what is
written here; its own writer wants all tensors at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import torch
from torch import Tensor

from tape.errors import CheckpointError

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


@dataclass(frozen=True)
class LazyTensor:
    """Shape and type of a tensor, and how to get it.

    Attributes:
        load: returns the tensor on the CPU, each time anew where it comes from a file.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> LazyTensor:
        """One that is in memory already."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def write_safetensors(stream: IO[bytes], tensors: Mapping[str, LazyTensor]) -> None:
    """Write ``tensors`` to ``stream``, loading one after the other.

    Raises:
        CheckpointError: a tensor of a type that the format doesn't have, or one that isn't what it was announced as.
    """
    # Wide types first, so that every tensor begins at a multiple of its item size.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    stream.write(_header(ordered))
    for name, lazy in ordered:
        tensor = lazy.load().detach().cpu().contiguous()
        if tuple(tensor.shape) != lazy.shape or tensor.dtype != lazy.dtype:
            raise CheckpointError(f"{name}: announced as {lazy.dtype} {lazy.shape}, but is {tensor.dtype}")
        stream.write(_little_endian(tensor.reshape(-1)).view(torch.uint8).numpy().data)


def _header(ordered: list[tuple[str, LazyTensor]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
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
