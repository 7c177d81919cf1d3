"""Embeddings of the proteins of a file (``tape-embed``).

An embedding is ``pooled`` (H,), the model's own pooled output (the state of ``<cls>``), and ``avg`` (H,), the mean over
residues without ``<cls>`` and ``<sep>`` (bug 22 in docs/compatibility.md), or all states; of the encoder's output, or
of chosen layers (:mod:`tape.inference.hidden_layers`). It does not depend on batches, ranks or interruptions. Computed
embeddings are kept in a journal (:mod:`tape.inference.embedding_journal`), so that the same command resumes an
interrupted run. At the end, the output file is written from the journal (:mod:`tape.inference.embedding_files`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tape.datasets.batching import check_token_budget, cut_by_tokens
from tape.datasets.embedding import EmbedDataset
from tape.datasets.labels import model_inputs
from tape.datasets.loading import load_batches, worker_count
from tape.evaluation.config import InferenceConfig
from tape.evaluation.evaluate import batch_shape, evaluation_mode, memory_remedies
from tape.evaluation.windows import pass_lengths
from tape.runtime.distributed import DistributedContext, barrier
from tape.runtime.out_of_memory import explain_out_of_memory
from tape.runtime.precision import autocast
from tape.runtime.progress import progress_bar
from tape.tasks import TaskType

from .embedded_proteins import EmbeddedProteins
from .embedding_files import write_embeddings
from .embedding_journal import (
    Embedding,
    EmbeddingJournal,
    Identity,
    StoredEmbedding,
    journal_file,
    journal_files,
    read_places,
)
from .hidden_layers import LAST

_JOURNAL_VERSION = 2  # of what is kept per protein; 1 had no pooled output beside all states

logger = logging.getLogger(__name__)


def run_identity(dataset: EmbedDataset, **settings: Any) -> Identity:
    """What must be identical to resume a run: the given settings, and the ids and lengths of the proteins."""
    dataset_index = dataset.build_index()
    digest = hashlib.sha256()
    for identifier, length in zip(dataset_index.identifiers, dataset_index.lengths.tolist(), strict=True):
        digest.update(f"{identifier}\n{length}\n".encode())
    proteins = {"proteins": len(dataset_index.lengths), "proteins_sha256": digest.hexdigest()}
    return {**settings, "version": _JOURNAL_VERSION, **proteins}


def embed(
    model: nn.Module,
    dataset: EmbedDataset,
    config: InferenceConfig,
    context: DistributedContext,
    out_file: Path,
    identity: Identity,
    *,
    dtype: str = "float32",
    hdf5_layout: str | None = None,
) -> int:
    """Compute the missing embeddings, and write the output file.

    Args:
        model: an encoder that returns (states (B, S, H), pooled (B, H), ...).
        dataset: the proteins.
        config: batch size, workers and precision.
        context: the process group among which the proteins are divided.
        out_file: the file, as returned by :func:`tape.inference.embedding_files.embeddings_file`.
        identity: identity of the run. Its ``full_sequence`` selects all states instead of their mean; its ``layers``,
            if given, are those that the model returns.
        dtype: type of the values in the output file.
        hdf5_layout: layout of an HDF5 file.

    Returns:
        Number of proteins that had been embedded by an interrupted run.
    """
    dataset_index = dataset.build_index()
    done = read_places(out_file, identity)
    barrier(context)  # all ranks read before any rank writes
    if done and context.is_main:
        logger.info("resuming after %d of %d proteins", len(done), len(dataset_index.lengths))
    with EmbeddingJournal(journal_file(out_file, context.rank), identity) as journal:
        for batch in embedded_batches(model, dataset, config, context, bool(identity["full_sequence"]), list(done)):
            journal.append(batch)
    barrier(context)
    if context.is_main:
        places = read_places(out_file, identity)
        proteins = _proteins(dataset, places, identity, dtype)
        write_embeddings(out_file, proteins, str(identity.get("model_sha256")), hdf5_layout)
        for path in journal_files(out_file):
            path.unlink()
    barrier(context)
    return len(done)


def _proteins(
    dataset: EmbedDataset, places: dict[int, StoredEmbedding], identity: Identity, dtype: str
) -> EmbeddedProteins:
    dataset_index = dataset.build_index()
    return EmbeddedProteins(
        identifiers=dataset_index.identifiers,
        sequence=lambda number: str(dataset.data[number]["primary"]),
        lengths=dataset_index.lengths,
        places=[places[number] for number in range(len(dataset_index.lengths))],
        full_sequence=bool(identity["full_sequence"]),
        layers=tuple(identity.get("layers", LAST)),
        dtype=dtype,
    )


def embedded_batches(
    model: nn.Module,
    dataset: EmbedDataset,
    config: InferenceConfig,
    context: DistributedContext,
    full_sequence: bool,
    done: Sequence[int] = (),
) -> Iterator[list[tuple[int, Embedding]]]:
    """Yield this rank's batches of proteins, longest first: their numbers and embeddings.

    Args:
        model, dataset, config, context: see :func:`embed`.
        full_sequence: all states instead of their mean over residues.
        done: numbers of the proteins to leave out.
    """
    plan, missing = _plan(pass_lengths(model, dataset.build_index().lengths), done, config)
    plan = plan[context.rank :: context.world_size]
    workers = worker_count(config.num_workers, missing)
    with evaluation_mode(model), progress_bar("embedding", missing, "protein", disable=not context.is_main) as bar:
        for indices, batch in zip(plan, load_batches(dataset, plan, num_workers=workers), strict=True):
            with (
                explain_out_of_memory("the forward pass", batch_shape(batch), memory_remedies(config.precision)),
                autocast(config.precision, context.device),
            ):
                states, pooled, *_ = model(**model_inputs(batch, context.device))
            tokens = batch["input_mask"].sum(1).tolist()
            yield list(zip(indices.tolist(), _embeddings(states, pooled, tokens, full_sequence), strict=True))
            bar.update(len(tokens) * context.world_size)


def _plan(lengths: np.ndarray, done: Sequence[int], config: InferenceConfig) -> tuple[list[np.ndarray], int]:
    """Batches of the missing proteins, longest first, and the number of these proteins."""
    check_token_budget(lengths, config.max_tokens)
    order = np.argsort(-lengths, kind="stable")
    order = order[~np.isin(order, np.asarray(done, dtype=np.int64))]
    return cut_by_tokens(lengths, order, config.batch_size_for(TaskType.EMBEDDING), config.max_tokens), order.size


def _embeddings(
    states: torch.Tensor, pooled: torch.Tensor, tokens: Sequence[int], full_sequence: bool
) -> list[Embedding]:
    """The embeddings of a batch, which is copied from the device once, not protein by protein.

    Args:
        states: (B, S, H) states.
        pooled: (B, P) pooled outputs, whose size may differ from that of the states.
        tokens: number of tokens of each protein.
        full_sequence: all states instead of their mean over residues.

    Returns:
        fp32 arrays of each protein: (tokens, H) states or their mean (1, H), and (P,) pooled output.
    """
    if full_sequence:
        kept = [row[:count].float().numpy() for row, count in zip(states.cpu(), tokens, strict=True)]
    else:
        # each protein by itself, so that its mean does not depend on the padding of the batch
        means = [row[:count].float()[1:-1].mean(0, keepdim=True) for row, count in zip(states, tokens, strict=True)]
        kept = list(torch.stack(means).cpu().numpy())
    return list(zip(kept, pooled.float().cpu().numpy(), strict=True))
