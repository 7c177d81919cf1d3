"""Model directories with ``config.json`` and weights, as TAPE and Hugging Face have, before their format is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.configs import CONFIG_NAME
from tape.errors import CheckpointError
from tape.io.checksums import sha256_of
from tape.io.json_files import read_json_object
from tape.models.lazy_tensors import LazyState

from .tensor_files import find_weights, open_weights, weights_files

# TensorFlow's names of layer-norm parameters, which the oldest PyTorch checkpoints use
_OLD_ENDINGS = ((".gamma", ".weight"), (".beta", ".bias"))
_ENCODER_PARTS = ("embeddings.", "encoder.", "pooler.", "bert_tail_dense.")


@dataclass(frozen=True)
class ModelFiles:
    """The content of a model directory.

    Attributes:
        path: the path given by the user.
        weights: the weights file, or the index of several.
        values: content of ``config.json``.
        state: tensors by name; names of the encoder start with ``bert.``.
    """

    path: Path
    weights: Path
    values: dict[str, Any]
    state: LazyState

    @property
    def directory(self) -> Path:
        return self.weights.parent

    @property
    def files(self) -> list[Path]:
        return [self.directory / CONFIG_NAME, *weights_files(self.weights)]

    def dtypes(self) -> list[str]:
        return sorted({str(tensor.dtype) for tensor in self.state.values()})


def is_model_directory(path: Path) -> bool:
    """Whether ``path`` is a directory with a configuration and weights, or a weights file with one beside it."""
    weights = find_weights(path)
    if weights is None or not weights.is_file() or weights.suffix not in (".safetensors", ".bin", ".json"):
        return False
    return (weights.parent / CONFIG_NAME).is_file()


def read_model_files(path: Path) -> ModelFiles:
    """Read the configuration and the names of the tensors.

    Raises:
        CheckpointError: if a file is missing or damaged; the message names it.
    """
    weights = find_weights(path)
    assert weights is not None
    state: LazyState = {}
    for name, tensor in open_weights(weights).items():
        modern = modern_name(name)
        if modern in state:
            raise CheckpointError(f"{weights}: {name} occurs twice, under an old and a new name")
        state[modern] = tensor
    return ModelFiles(path, weights, read_json_object(weights.parent / CONFIG_NAME), state)


def modern_name(name: str) -> str:
    """A key in this project's spelling: layer norms have ``weight`` and ``bias``, encoder keys start with ``bert.``."""
    for old, new in _OLD_ENDINGS:
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return "bert." + name if name.startswith(_ENCODER_PARTS) else name


def file_hashes(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file, by path."""
    return {str(file): {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files}


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments, with values that JSON lacks (data types, paths) as text."""
    plain = (str, int, float, bool, type(None))
    return {str(key): value if isinstance(value, plain) else str(value) for key, value in sorted(values.items())}
