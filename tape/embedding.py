"""States of a model for the proteins of a file, as ``tape-embed`` writes them.

The .npz has one 0-d object array a protein, under its id, with a dictionary: ``pooled`` (H,), the state of ``<cls>``,
and ``avg`` (H,), the mean over residues, without ``<cls>`` and ``<sep>`` (defect 22); or with the full sequence ``seq``
(L + 2, H). Reading it needs ``allow_pickle=True``.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .atomic_files import atomic_write
from .batches import model_inputs
from .datasets.batching import plan_evaluation
from .datasets.embedding import EmbedDataset
from .datasets.loading import load_batches, worker_count
from .errors import ConfigError, DataError
from .evaluation import EvaluationConfig, evaluation_mode
from .precision import autocast
from .progress import Progress

logger = logging.getLogger(__name__)

Embedding = dict[str, np.ndarray]


def embed(
    model: nn.Module, dataset: EmbedDataset, config: EvaluationConfig, device: torch.device, full_sequence: bool
) -> dict[str, Embedding]:
    """Embeddings by protein id, in the order of the file.

    Args:
        model: returns (states (B, S, H), pooled (B, H), ...).
        dataset: the proteins.
        config: batch size, workers, precision.
        device: the model's.
        full_sequence: all states instead of the two vectors.

    Raises:
        DataError: two proteins with one id.
    """
    identifiers = list(dataset.survey().identifiers)
    _check_unique(dataset.data.path, identifiers)
    plan = plan_evaluation(dataset.survey().lengths, config.batch_size)
    found: dict[str, Embedding] = {}
    workers = worker_count(config.num_workers, len(dataset))
    with evaluation_mode(model), Progress("embedding", len(dataset)) as progress:
        for batch in load_batches(dataset, plan, num_workers=workers):
            with autocast(config.precision, device):
                states, pooled, *_ = model(**model_inputs(batch, device))
            tokens = batch["input_mask"].sum(1).tolist()
            for row, (identifier, count) in enumerate(zip(batch["ids"], tokens, strict=True)):
                found[identifier] = _one(states[row, :count], pooled[row], full_sequence)
            progress.advance(len(tokens))
    return {identifier: found[identifier] for identifier in identifiers}


def _one(states: torch.Tensor, pooled: torch.Tensor, full_sequence: bool) -> Embedding:
    states = states.float()
    if full_sequence:
        return {"seq": states.cpu().numpy()}
    return {"pooled": pooled.float().cpu().numpy(), "avg": states[1:-1].mean(0).cpu().numpy()}


def _check_unique(path: Path, identifiers: list[str]) -> None:
    seen: set[str] = set()
    for identifier in identifiers:
        if identifier in seen:
            raise DataError(f"{path}: two proteins have the id {identifier!r}; embeddings are stored by id")
        seen.add(identifier)


def embeddings_file(path: Path) -> Path:
    """The .npz to write, the suffix added when missing; asked for before anything is computed.

    Raises:
        ConfigError: the folder does not exist, or nothing can be written there.
    """
    path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such directory to write {path.name} to")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path}: can't be written there")
    return path


def write_embeddings(path: Path, embeddings: dict[str, Embedding]) -> Path:
    """Write the .npz; the suffix is added when missing. Returns the path written.

    Raises:
        ConfigError: as :func:`embeddings_file`.
    """
    path = embeddings_file(path)
    arrays: dict[str, Any] = {}
    for identifier, embedding in embeddings.items():
        array = np.empty((), dtype=object)
        array[()] = embedding
        arrays[identifier] = array
    with atomic_write(path) as stream:
        _savez(stream, arrays)
    return path


def _savez(stream: Any, arrays: dict[str, Any]) -> None:
    """``np.savez`` for any names: it takes them as keyword arguments, where ``file`` would clash with its own."""
    import zipfile

    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=True)
