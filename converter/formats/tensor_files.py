"""Weights files of other programs, read tensor by tensor: ``.safetensors``, pickles of PyTorch, Hugging Face's indices.

A zip file of ``torch.save`` is mapped into memory; what has been read of it counts as memory used until the map is
given back, so that happens after every so many bytes. Files of the older, unzipped form can't be mapped and are read
as a whole.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from converter.safe_load import load_checkpoint_file
from tape.errors import CheckpointError
from tape.models.lazy_tensors import SAFETENSORS_DTYPES, LazyTensor

_MAPPED_BYTES = 1 << 28
_CHUNK_BYTES = 1 << 20
_DTYPES = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}

LazyState = dict[str, LazyTensor]


class PickledFile:
    """A file of ``torch.save``, kept open only as long as it is being read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: Any = None
        self._bytes_read = 0
        self._checked = False
        self._mapped = zipfile.is_zipfile(path) if path.is_file() else False

    def content(self) -> Any:
        """What the file holds; tensors in it may lie in its map, so keep none of them.

        Raises:
            CheckpointError: missing, damaged, or refused by :mod:`converter.safe_load`.
        """
        if self._content is None:
            content = load_checkpoint_file(self.path)
            if self._mapped and not self._checked:
                check_records(self.path)
                self._checked = True
            self._content = content
        return self._content

    def release(self) -> None:
        """Forget the content; the next use reads the file again."""
        self._content, self._bytes_read = None, 0

    def lazy(self, tensor: Tensor, keys: tuple[Any, ...]) -> LazyTensor:
        """``tensor``, found in the content by ``keys``, for later."""
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


def check_records(path: Path) -> None:
    """Compare every record of a zip file with its checksum, which a mapped file is otherwise read without.

    Raises:
        CheckpointError: names the first record that was altered since it was written.
    """
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            try:
                with archive.open(record) as stream:
                    while stream.read(_CHUNK_BYTES):
                        pass
            except (zipfile.BadZipFile, OSError, EOFError) as error:
                raise CheckpointError(f"{path}: record {record.filename} is damaged ({error})") from error


def find_weights(path: Path) -> Path | None:
    """The weights file of a model directory, or the index of several; a file itself. None: there is none."""
    if not path.is_dir():
        return path
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    index = path / "pytorch_model.bin.index.json"
    return index if index.is_file() else None


def weights_files(file: Path) -> list[Path]:
    """The files with the tensors: ``file`` itself, or those that it names when it is an index.

    Raises:
        CheckpointError: an index that can't be read or names files elsewhere.
    """
    if file.name.endswith(".index.json"):
        return sorted({file.parent / name for name in _weight_map(file).values()})
    return [file]


def open_weights(file: Path) -> LazyState:
    """Names, shapes and types of a weights file; the tensors are read on demand.

    Raises:
        CheckpointError: damaged, refused, or not a plain dictionary of tensors.
    """
    if file.name.endswith(".index.json"):
        return _open_index(file)
    if file.suffix == ".safetensors":
        return _open_safetensors(file)
    pickled = PickledFile(file)
    content = pickled.content()
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds a {type(content).__name__}, not a state dict")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{file}: entry {name!r} is a {type(value).__name__}, not a tensor")
    state = {str(name): pickled.lazy(value, (name,)) for name, value in content.items()}
    del content
    pickled.release()
    return state


def _open_safetensors(file: Path) -> LazyState:
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> Tensor:
        # Opened anew for each tensor: closing gives the map back.
        try:
            with safe_open(file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(name).clone()
                return tensor
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: {name}: damaged ({error})") from error

    state = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dictionary)
                entry = opened.get_slice(name)
                if entry.get_dtype() not in _DTYPES:
                    raise CheckpointError(f"{file}: {name} has the type {entry.get_dtype()}, which isn't read")
                shape, dtype = tuple(entry.get_shape()), _DTYPES[entry.get_dtype()]
                state[name] = LazyTensor(shape, dtype, partial(read, name))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged or not a safetensors file ({error})") from error
    return state


def _open_index(file: Path) -> LazyState:
    weight_map = _weight_map(file)
    parts = {name: open_weights(file.parent / name) for name in sorted(set(weight_map.values()))}
    for tensor, name in weight_map.items():
        if tensor not in parts[name]:
            raise CheckpointError(f"{file}: {tensor} should be in {name}, but isn't")
    return {tensor: parts[name][tensor] for tensor, name in weight_map.items()}


def _weight_map(file: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        names = set(weight_map.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: not an index of weights ({error})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.endswith(".json"):
            raise CheckpointError(f"{file}: names {name!r}, which is no weights file beside it")
        if not (file.parent / name).is_file():
            raise CheckpointError(f"{file.parent / name}: missing, {file.name} names it")
    return dict(weight_map)
