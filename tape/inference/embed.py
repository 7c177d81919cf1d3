"""States of a model for the proteins of a file, as ``tape-embed`` writes them.

Of each protein ``pooled`` (H,), the model's own vector (the state of ``<cls>``), and ``avg`` (H,), the mean over
residues without ``<cls>`` and ``<sep>`` (defect 22); or all states. Neither depends on batches, ranks or breaks: what
is done is kept in a journal (:mod:`tape.inference.embedding_journal`), the same command goes on behind it, and at
the end the journal becomes the file (:mod:`tape.inference.embedding_files`).
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tape.datasets.batching import check_token_budget, cut_by_tokens
from tape.datasets.embedding import EmbedDataset
from tape.datasets.index import DatasetIndex
from tape.datasets.labels import model_inputs
from tape.datasets.loading import load_batches, worker_count
from tape.errors import DataError
from tape.evaluation.evaluate import EvaluationConfig, evaluation_mode
from tape.runtime.distributed import DistributedContext, wait_for_all
from tape.runtime.precision import autocast
from tape.runtime.progress import Progress

from .embedding_files import EmbeddedProteins, write_embeddings
from .embedding_journal import Embedding, EmbeddingJournal, Identity, journal_file, journal_files, read_places

logger = logging.getLogger(__name__)


def run_identity(dataset: EmbedDataset, **settings: Any) -> Identity:
    """What must be the same for a run to go on: the settings given, and the proteins' ids and lengths.

    Raises:
        DataError: two proteins with one id.
    """
    survey = dataset.survey()
    _check_unique(dataset.data.path, survey)
    digest = hashlib.sha256()
    for identifier, length in zip(survey.identifiers, survey.lengths.tolist(), strict=True):
        digest.update(f"{identifier}\n{length}\n".encode())
    return {**settings, "proteins": len(survey.lengths), "proteins_sha256": digest.hexdigest()}


def embed(
    model: nn.Module,
    dataset: EmbedDataset,
    config: EvaluationConfig,
    ranks: DistributedContext,
    out_file: Path,
    identity: Identity,
) -> int:
    """Compute what is missing, and write the file when nothing is.

    Args:
        model: returns (states (B, S, H), pooled (B, H), ...).
        dataset: the proteins.
        config: batch size, workers, precision.
        ranks: the processes among which the proteins are divided.
        out_file: as :func:`tape.inference.embedding_files.embeddings_file` gave it.
        identity: of the run, with ``full_sequence``: all states instead of the two vectors.

    Returns:
        How many proteins were done before.
    """
    survey = dataset.survey()
    done = read_places(out_file, identity)
    wait_for_all(ranks)  # all have read before anyone writes
    if done and ranks.is_writer:
        logger.info("going on after %d of %d proteins", len(done), len(survey.lengths))
    with EmbeddingJournal(journal_file(out_file, ranks.rank), identity) as journal:
        _compute(model, dataset, config, ranks, np.asarray(list(done), dtype=np.int64), journal, identity)
    wait_for_all(ranks)
    if ranks.is_writer:
        places = read_places(out_file, identity)
        whole = [places[index] for index in range(len(survey.lengths))]
        proteins = EmbeddedProteins(survey.identifiers, survey.lengths, whole, bool(identity["full_sequence"]))
        write_embeddings(out_file, proteins, identity)
        for path in journal_files(out_file):
            path.unlink()
    wait_for_all(ranks)
    return len(done)


def _compute(
    model: nn.Module,
    dataset: EmbedDataset,
    config: EvaluationConfig,
    ranks: DistributedContext,
    done: np.ndarray,
    journal: EmbeddingJournal,
    identity: Identity,
) -> None:
    plan, missing = _plan(dataset.survey(), done, config)
    plan = plan[ranks.rank :: ranks.world_size]
    workers = worker_count(config.num_workers, missing)
    with evaluation_mode(model), Progress("embedding", missing, ranks.is_writer) as progress:
        for indices, batch in zip(plan, load_batches(dataset, plan, num_workers=workers), strict=True):
            with autocast(config.precision, ranks.device):
                states, pooled, *_ = model(**model_inputs(batch, ranks.device))
            tokens = batch["input_mask"].sum(1).tolist()
            journal.append(
                (index, _one(states[row, :count], pooled[row], bool(identity["full_sequence"])))
                for row, (index, count) in enumerate(zip(indices.tolist(), tokens, strict=True))
            )
            progress.advance(len(tokens) * ranks.world_size)


def _plan(survey: DatasetIndex, done: np.ndarray, config: EvaluationConfig) -> tuple[list[np.ndarray], int]:
    """Batches of what is missing, longest first, and how many proteins that are."""
    check_token_budget(survey.lengths, config.max_tokens)
    order = np.argsort(-survey.lengths, kind="stable")
    order = order[~np.isin(order, done)]
    return cut_by_tokens(survey.lengths, order, config.batch_size, config.max_tokens), order.size


def _one(states: torch.Tensor, pooled: torch.Tensor, full_sequence: bool) -> Embedding:
    """All states; or their mean over residues, and the pooled vector (not every model's is as wide as its states)."""
    states = states.float()
    if full_sequence:
        return states.cpu().numpy(), np.empty(0, np.float32)
    return states[1:-1].mean(0, keepdim=True).cpu().numpy(), pooled.float().cpu().numpy()


def _check_unique(path: Path, survey: DatasetIndex) -> None:
    seen: set[str] = set()
    for identifier in survey.identifiers:
        if identifier in seen:
            raise DataError(f"{path}: two proteins have the id {identifier!r}; embeddings are stored by id")
        seen.add(identifier)
