"""Model directories with ``config.json`` and weights, as TAPE and Hugging Face have, before their format is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.mapping.tables import PROTEINLM_DROPS
from tape.configs import CONFIG_NAME, ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, ProteinLMError
from tape.io.checkpoint_formats import refuse_wrapped_keys
from tape.io.checksums import sha256_of
from tape.io.json_files import read_json_object
from tape.models.lazy_tensors import LazyState
from tape.models.model_directory import verify_model_directory

from .tensor_files import find_weights, open_weights, weights_files

# TensorFlow's names of layer-norm parameters, which the oldest PyTorch checkpoints use
_OLD_ENDINGS = ((".gamma", ".weight"), (".beta", ".bias"))
_TOKENIZER_NAMES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
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

    def transformer_config(self, values: dict[str, Any]) -> ProteinBertConfig:
        """The configuration of a transformer from ``values`` of ``config.json``, translated to TAPE's names.

        Raises:
            CheckpointError: if a size is missing.
            ConfigError: if a value is invalid.
        """
        file = self.directory / CONFIG_NAME
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
            if name not in values:
                raise CheckpointError(f"{file}: has no {name}, so it does not describe a transformer")
        try:
            return ProteinBertConfig.from_dict(values)
        except (ProteinLMError, TypeError) as error:
            raise ConfigError(f"{file}: {error}") from error

    def dtypes(self) -> list[str]:
        return sorted({str(tensor.dtype) for tensor in self.state.values()})


def open_model_files(path: Path, verify: bool = True) -> ModelFiles | None:
    """Read the configuration and the names of the tensors.

    Args:
        path: a directory with a configuration and weights, or a weights file with a configuration beside it.
        verify: compare the files with the directory's ``SHA256SUMS``, if it has one.

    Returns:
        The files; None if ``path`` is neither.

    Raises:
        CheckpointError: if a file is damaged; the message names it.
    """
    weights = find_weights(path)
    if weights is None or not weights.is_file() or weights.suffix not in (".safetensors", ".bin", ".json"):
        return None
    config = weights.parent / CONFIG_NAME
    if not config.is_file():
        return None
    verified: frozenset[str] = frozenset()
    if verify:
        parts = {weights.name, *(file.name for file in weights_files(weights))}
        verified = verify_model_directory(weights.parent, [*sorted(parts), *_TOKENIZER_NAMES])
    state: LazyState = {}
    tensors = open_weights(weights, verified)
    refuse_wrapped_keys(tensors, weights)
    for name, tensor in tensors.items():
        modern = modern_name(name)
        if modern in state:
            raise CheckpointError(f"{weights}: {name} occurs twice, under an old and a new name")
        state[modern] = tensor
    return ModelFiles(path, weights, read_json_object(config), state)


def open_reference(path: Path) -> LazyState:
    """The parameters of a TAPE checkpoint given by ``-dst``; those of a bare encoder get the prefix ``bert.``.

    Raises:
        CheckpointError: if there are no weights at ``path``, or they are damaged.
    """
    weights = find_weights(path)
    if weights is None or not weights.is_file():
        raise CheckpointError(f"{path}: no such model directory or weights file")
    unused = tuple(pattern.rstrip("*") for pattern in PROTEINLM_DROPS)
    state = {modern_name(name): tensor for name, tensor in open_weights(weights).items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith(unused)}


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
