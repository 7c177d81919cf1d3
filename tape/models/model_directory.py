"""Reading and writing model directories: ``config.json``, weights, ``vocabulary.json`` and ``provenance.json``.

The weights are in ``model.safetensors``, or as a plain state dict in ``pytorch_model.bin``. Pickles are loaded with
``weights_only``, so that an untrusted file can't run code.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tape.configs import CONFIG_NAME, ProteinConfig
from tape.errors import CheckpointError, VocabularyMismatchError
from tape.io.atomic import atomic_write, write_json
from tape.io.json_files import read_json_object
from tape.tokenizers import TAPETokenizer

from .lazy_tensors import LazyTensor, write_safetensors

SAFETENSORS_NAME = "model.safetensors"
BIN_NAME = "pytorch_model.bin"
VOCABULARY_NAME = "vocabulary.json"
PROVENANCE_NAME = "provenance.json"
FORMAT_VERSION = 1
UNTRAINED = "untrained"  # ``kind`` in the provenance of a model that was saved before any training

StateDict = dict[str, Tensor]


def load_weights_only(path: str | os.PathLike[str]) -> Any:
    """``torch.load`` on the CPU with ``weights_only``. Reads zip files, the older format and protocol-2 pickles.

    Raises:
        CheckpointError: the file is missing, truncated, or contains objects other than data. Names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused or damaged; only tensors and plain data are loaded") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[
            0
        ]  # an empty file raises an error without a message
        raise CheckpointError(f"{path}: damaged or not a PyTorch file ({reason})") from error


def load_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Load the state dict of a model directory or of a weights file, on the CPU.

    Raises:
        CheckpointError: there are no weights, the file is damaged, or an entry is not a tensor.
    """
    file = _weights_file(Path(path))
    if file.suffix == ".safetensors":
        state = _load_safetensors(file)
    else:
        state = load_weights_only(file)
    if not isinstance(state, dict):
        raise CheckpointError(f"{file}: holds a {type(state).__name__}, not a state dict")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{file}: entry {name!r} is a {type(value).__name__}, not a tensor")
    return dict(state)


def save_model_directory(
    directory: str | os.PathLike[str],
    state: Mapping[str, Tensor | LazyTensor],
    config: ProteinConfig,
    *,
    weights: str = SAFETENSORS_NAME,
    provenance: dict[str, Any] | None = None,
    tokenizer: TAPETokenizer | None = None,
) -> None:
    """Write a model directory. Each file is written atomically, the weights last.

    Args:
        directory: the directory, created if it does not exist.
        state: tensors on any device, or lazy tensors; tied weights are stored under both names.
        config: written to ``config.json``.
        weights: file name of the weights; its suffix ``.safetensors`` or ``.bin`` chooses the format.
        provenance: origin of the weights, as any JSON object.
        tokenizer: owner of the vocabulary of the embeddings; ``iupac`` if None.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or TAPETokenizer()
    with atomic_write(directory / CONFIG_NAME, "w") as stream:
        stream.write(config.to_json_string())
    write_json(
        directory / VOCABULARY_NAME,
        {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint, "tokens": tokenizer.vocab},
    )
    if provenance is not None:
        write_json(directory / PROVENANCE_NAME, {"format_version": FORMAT_VERSION, **provenance})
    with atomic_write(directory / weights) as stream:
        if weights.endswith(".safetensors"):
            # One tensor at a time, so that there is never a second copy of a large model in memory.
            write_safetensors(stream, {name: _as_lazy(value) for name, value in state.items()})
        else:
            # torch.save stores the entire storage of a view, so save clones.
            torch.save(
                {name: _as_lazy(value).load().detach().cpu().contiguous().clone() for name, value in state.items()},
                stream,
            )


def _as_lazy(value: Tensor | LazyTensor) -> LazyTensor:
    return LazyTensor.of(value) if isinstance(value, Tensor) else value


def directory_provenance(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read ``provenance.json`` of a model directory; empty if there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = Path(directory) / PROVENANCE_NAME
    return read_json_object(path) if path.is_file() else {}


def check_vocabulary(directory: str | os.PathLike[str], tokenizer: TAPETokenizer) -> None:
    """Check that the model has the tokenizer's vocabulary. A directory without ``vocabulary.json`` is accepted.

    Raises:
        VocabularyMismatchError: the model has another vocabulary. Names both.
    """
    path = Path(directory) / VOCABULARY_NAME
    if not path.is_file():
        return
    record = read_json_object(path)
    try:
        name, fingerprint = str(record["name"]), str(record["fingerprint"])
    except KeyError as error:
        raise CheckpointError(f"{path}: not a vocabulary record ({error} is missing)") from error
    if fingerprint != tokenizer.fingerprint:
        raise VocabularyMismatchError(
            f"{path}: the model has the vocabulary {name} ({fingerprint}), but the data is tokenized with"
            f" {tokenizer.name} ({tokenizer.fingerprint})"
        )


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        if path.is_file():
            return path
        raise CheckpointError(f"{path}: no such file or directory; give a model directory or a weights file")
    for name in (SAFETENSORS_NAME, BIN_NAME):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path}: contains neither {SAFETENSORS_NAME} nor {BIN_NAME}")


def _load_safetensors(file: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged or not a safetensors file ({error})") from error
