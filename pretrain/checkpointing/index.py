"""Names of the tensors in a checkpoint, and torch's index of where each lies, read without trusting it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from tape.errors import CheckpointError

from .format import INDEX_NAME, MODEL_PREFIX, OPTIMIZER_PREFIX


def named_tensors(model: nn.Module, optimizer_state: dict[str, Tensor]) -> dict[str, Any]:
    """All tensors of a checkpoint by name; reading fills these very tensors."""
    return {
        **{MODEL_PREFIX + name: value for name, value in model.state_dict().items()},
        **{OPTIMIZER_PREFIX + name: value for name, value in optimizer_state.items()},
    }


LONELINESS = "torch.distributed is disabled, unavailable or uninitialized"


@contextmanager
def without_loneliness_warning() -> Iterator[None]:
    """One process is a normal way to run; torch warns of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=LONELINESS)
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
