"""Reading and writing model directories: ``config.json``, weights, ``vocabulary.json`` and ``provenance.json``.

The weights are in ``model.safetensors``, or as a plain state dict in ``pytorch_model.bin``, which is read by
:mod:`tape.models.torch_files`, so that an untrusted file can't run code. ``SHA256SUMS`` has the sums of these files,
which are verified on loading; directories without it, such as TAPE's and Hugging Face's, load without that check.

The header of ``model.safetensors`` has the settings that change what the weights compute although no weight shows them,
such as the activation, so that the ``config.json`` of another model beside it is noticed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tape.configs import CONFIG_NAME, ProteinConfig, settings_beside_weights
from tape.errors import CheckpointError, VocabularyMismatchError, quoted
from tape.io.checksums import SUMS_NAME, HashingStream, sha256_of, verify_sums, write_sums
from tape.io.json_files import parse_json, read_json_object
from tape.io.writing import atomic_write, write_json
from tape.io.zip_files import is_zip, verify_crcs
from tape.tokenizers import TAPETokenizer

from .lazy_tensors import (
    LazyTensor,
    check_safetensors_header,
    safetensors_metadata,
    stored_bytes,
    write_safetensors,
)
from .torch_files import load_torch_file

SAFETENSORS_NAME = "model.safetensors"
BIN_NAME = "pytorch_model.bin"
VOCABULARY_NAME = "vocabulary.json"
PROVENANCE_NAME = "provenance.json"
FORMAT_VERSION = 1
ARCHITECTURE_KEY = "proteinlm_architecture"  # in the header of model.safetensors: a JSON object
UNTRAINED = "untrained"  # ``kind`` in the provenance of a model that was saved before any training

StateDict = dict[str, Tensor]

logger = logging.getLogger(__name__)


def load_weights_only(path: str | os.PathLike[str], *, verify: bool = True) -> Any:
    """Load a file of ``torch.save`` onto the CPU, see :func:`tape.models.torch_files.load_torch_file`.

    Args:
        path: the file.
        verify: compare the records of a zip file with their CRCs. The older format has none, so damage to its numbers
            can't be noticed; a log line (level INFO) reports it.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or contains objects other than data. Names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if verify and is_zip(path):
        verify_crcs(path)
    elif verify:
        logger.info("%s: in PyTorch's format before version 1.6, which has no checksums", path)
    return load_torch_file(path)


def load_state_dict(path: str | os.PathLike[str], *, verify: bool = True) -> StateDict:
    """Load the state dict of a model directory or of a weights file, on the CPU.

    Args:
        path: the directory or file.
        verify: compare the weights with their SHA-256, see :func:`verify_model_directory`, or without one with the
            CRCs of a zip file.

    Raises:
        CheckpointError: there are no weights, the file is damaged, or an entry is not a tensor.
    """
    file = weights_file(Path(path))
    verified = verify_model_directory(file.parent, [file.name]) if verify else ()
    if file.suffix == ".safetensors":
        state = _load_safetensors(file)
    else:
        state = load_weights_only(file, verify=verify and file.name not in verified)
    if not isinstance(state, dict):
        raise CheckpointError(f"{file}: holds a {type(state).__name__}, not a state dict")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{file}: entry {quoted(name)} is a {type(value).__name__}, not a tensor")
    return dict(state)


def verify_model_directory(directory: Path, names: Iterable[str]) -> frozenset[str]:
    """Compare the files of a model directory with its ``SHA256SUMS``, if it has one.

    Args:
        directory: the model directory.
        names: files to verify beside the configuration, vocabulary and provenance: the weights, and a tokenizer.

    Returns:
        Names of the files that were compared, whose other checksums need no look.

    Raises:
        CheckpointError: a file is missing or differs. Names it and how to continue.
    """
    sums = verify_sums(directory, (CONFIG_NAME, VOCABULARY_NAME, PROVENANCE_NAME, *names))
    if sums.unlisted:
        logger.warning("%s: does not list %s, so nothing verifies it", directory / SUMS_NAME, ", ".join(sums.unlisted))
    return sums.verified


def save_model_directory(
    directory: str | os.PathLike[str],
    state: Mapping[str, Tensor | LazyTensor],
    config: ProteinConfig,
    *,
    weights: str = SAFETENSORS_NAME,
    provenance: dict[str, Any] | None = None,
    tokenizer: TAPETokenizer | None = None,
) -> None:
    """Write a model directory. Each file is written atomically, the weights and the checksums of all files last.

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
    (directory / SUMS_NAME).unlink(missing_ok=True)  # an interrupted replacement of a model must not leave old sums
    tokenizer = tokenizer or TAPETokenizer()
    names = [CONFIG_NAME, VOCABULARY_NAME]
    with atomic_write(directory / CONFIG_NAME, "w") as stream:
        stream.write(config.to_json_string())
    write_json(
        directory / VOCABULARY_NAME,
        {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint, "tokens": tokenizer.vocab},
    )
    if provenance is not None:
        names.append(PROVENANCE_NAME)
        write_json(directory / PROVENANCE_NAME, {"format_version": FORMAT_VERSION, **provenance})
    with atomic_write(directory / weights, needed=stored_bytes(state)) as stream:
        hashed = HashingStream(stream)
        lazy = {name: _as_lazy(value) for name, value in state.items()}
        _write_weights(hashed, lazy, Path(weights).suffix, architecture_metadata(config))
    write_sums(directory, {weights: hashed.hexdigest(), **{name: sha256_of(directory / name) for name in names}})


def architecture_metadata(config: ProteinConfig) -> dict[str, str]:
    """What the header of a safetensors file has about the model, see :func:`check_architecture`."""
    settings = settings_beside_weights(config)
    return {ARCHITECTURE_KEY: json.dumps(settings, sort_keys=True)} if settings else {}


def check_architecture(
    path: Path, config: ProteinConfig, config_file: Path, replaced: Container[str] = frozenset()
) -> None:
    """Compare a configuration with that of its weights, if they are in a safetensors file that has it in its header.

    Args:
        path: a model directory or a weights file.
        config: the configuration.
        config_file: the file that it is from.
        replaced: names of settings that the user has replaced.

    Raises:
        CheckpointError: a setting differs, so that the weights would compute something else. Names both values.
    """
    file = weights_file(path)
    text = safetensors_metadata(file).get(ARCHITECTURE_KEY) if file.suffix == ".safetensors" else None
    if text is None:
        return
    try:
        stored = parse_json(text.encode())
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise CheckpointError(f"{file}: {ARCHITECTURE_KEY} in its header is not a JSON object; the file is damaged")
    stated = settings_beside_weights(config)
    for name in sorted(stored.keys() & stated.keys()):
        if name not in replaced and stored[name] != stated[name]:
            raise CheckpointError(
                f"{config_file}: {name} is {quoted(stated[name])}, but {file.name} was saved with"
                f" {quoted(stored[name])}; it is the configuration of another model, or has been changed: restore that"
                " of these weights"
            )


def _write_weights(stream: Any, state: Mapping[str, LazyTensor], suffix: str, metadata: Mapping[str, str]) -> None:
    if suffix == ".safetensors":
        # One tensor at a time, so that there is never a second copy of a large model in memory.
        write_safetensors(stream, state, metadata)
    else:
        # torch.save stores the entire storage of a view, so save clones.
        torch.save({name: lazy.load().detach().cpu().contiguous().clone() for name, lazy in state.items()}, stream)


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


def weights_file(path: Path) -> Path:
    """The weights file of a model directory, or the path itself if it is a file.

    Raises:
        CheckpointError: there is none.
    """
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

    check_safetensors_header(file)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged or not a safetensors file ({error})") from error
