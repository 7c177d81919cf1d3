"""Weights files, read tensor by tensor: ``.safetensors``, PyTorch pickles and Hugging Face's index files.

A zip file of ``torch.save`` is memory-mapped. Pages that have been read count as memory in use until the map is closed,
so it is closed and reopened at regular intervals. Files of the older, unzipped format can't be mapped and are read
completely.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from converter.safe_load import load_checkpoint_file
from tape.errors import CheckpointError, quoted
from tape.io.json_files import read_json_object
from tape.io.zip_files import is_zip, verify_crcs
from tape.models.lazy_tensors import SAFETENSORS_DTYPES, LazyState, LazyTensor, check_safetensors_header

_MAPPED_BYTES = 1 << 28
_DTYPES = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}


class PickledFile:
    """A file written by ``torch.save``, open only while it is being read.

    Args:
        path: the file.
        verified: whether its SHA-256 was compared, so that the CRCs in it need not be.
    """

    def __init__(self, path: Path, verified: bool = False) -> None:
        self.path = path
        self._verified = verified
        self._content: Any = None
        self._bytes_read = 0
        self._mapped: bool | None = None

    def content(self) -> Any:
        """The content of the file. Its tensors may point into the memory map and must not be kept.

        Raises:
            CheckpointError: if it is missing, damaged, or refused by :mod:`converter.safe_load`.
        """
        if self._content is None:
            if self._mapped is None and self.path.is_file():
                self._mapped = is_zip(self.path)
                if self._mapped and not self._verified:
                    verify_crcs(self.path)
            self._content = load_checkpoint_file(self.path)
        return self._content

    def release(self) -> None:
        """Drop the content; the next access reads the file again."""
        self._content, self._bytes_read = None, 0

    def lazy(self, tensor: Tensor, keys: tuple[Any, ...]) -> LazyTensor:
        """``tensor``, to be loaded later from the path ``keys`` in the content."""
        return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda: self._read(keys))

    def _read(self, keys: tuple[Any, ...]) -> Tensor:
        entry = self.content()
        for key in keys:
            entry = entry[key]
        tensor: Tensor = entry.detach().clone()
        self._bytes_read += tensor.nbytes
        if self._mapped and self._bytes_read > _MAPPED_BYTES:
            self.release()
        return tensor


def find_weights(path: Path) -> Path | None:
    """The weights file of a model directory (or the index of several), or the given file; None if there is none."""
    if not path.is_dir():
        return path
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    index = path / "pytorch_model.bin.index.json"
    return index if index.is_file() else None


def weights_files(file: Path) -> list[Path]:
    """The files that contain the tensors: ``file`` itself, or those listed by an index.

    Raises:
        CheckpointError: if an index can't be read or lists files in other directories.
    """
    if file.name.endswith(".index.json"):
        return sorted({file.parent / name for name in _weight_map(file).values()})
    return [file]


def open_weights(file: Path, verified: Collection[str] = ()) -> LazyState:
    """Names, shapes and data types in a weights file; the tensors are read on demand.

    Args:
        file: the file, or an index of several.
        verified: names of the files whose SHA-256 was compared; the CRCs in others are.

    Raises:
        CheckpointError: if it is damaged, refused, or not a plain dictionary of tensors.
    """
    if file.name.endswith(".index.json"):
        return _open_index(file, verified)
    if file.suffix == ".safetensors":
        return _open_safetensors(file)
    pickled = PickledFile(file, file.name in verified)
    content = pickled.content()
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: contains a {type(content).__name__}, not a state dict")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{file}: entry {quoted(name)} is a {type(value).__name__}, not a tensor")
    state = {str(name): pickled.lazy(value, (name,)) for name, value in content.items()}
    del content
    pickled.release()
    return state


def _open_safetensors(file: Path) -> LazyState:
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> Tensor:
        # reopened for each tensor, because closing releases the memory map
        try:
            with safe_open(file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(name).clone()
                return tensor
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: {name}: damaged ({error})") from error

    check_safetensors_header(file)
    state = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dictionary)
                entry = opened.get_slice(name)
                if entry.get_dtype() not in _DTYPES:
                    raise CheckpointError(
                        f"{file}: {name} has the data type {entry.get_dtype()}, which is not supported"
                    )
                shape, dtype = tuple(entry.get_shape()), _DTYPES[entry.get_dtype()]
                state[name] = LazyTensor(shape, dtype, partial(read, name))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged or not a safetensors file ({error})") from error
    return state


def _open_index(file: Path, verified: Collection[str]) -> LazyState:
    weight_map = _weight_map(file)
    parts = {name: open_weights(file.parent / name, verified) for name in sorted(set(weight_map.values()))}
    for tensor, name in weight_map.items():
        if tensor not in parts[name]:
            raise CheckpointError(f"{file}: {tensor} is not in {name}, where the index places it")
    for name, part in parts.items():
        for tensor in part:
            if weight_map.get(tensor) != name:
                place = f"places in {weight_map[tensor]}" if tensor in weight_map else "doesn't list"
                raise CheckpointError(f"{file}: {name} contains {quoted(tensor)}, which the index {place}")
    return {tensor: parts[name][tensor] for tensor, name in weight_map.items()}


def _weight_map(file: Path) -> dict[str, str]:
    try:
        weight_map = read_json_object(file)["weight_map"]
        names = set(weight_map.values())
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: not an index of weights files ({error})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.endswith(".json"):
            raise CheckpointError(f"{file}: lists {quoted(name)}, which is not a weights file in the same directory")
        if not os.path.isfile(file.parent / name):  # False for a name that no file can have
            raise CheckpointError(f"{file.parent / name}: missing, but {file.name} lists it")
    return dict(weight_map)
