"""Samples and micro-batches: special tokens, masking, and the rows that each data-parallel rank receives.

A sample is one row of packed proteins. Its masks are a pure function of (seed, epoch, protein, piece) and its position
in the run is a pure function of (seed, consumed samples), so that any number of workers and ranks sees the same
batches, also after a resume. A micro-batch concatenates its rows without padding; protein boundaries come from the
lengths of the uncorrupted proteins and are never derived from the tokens, which masking may have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from tape.errors import DataError, ProteinLMError
from tape.masking import IGNORED, mask_tokens
from tape.models.attention import PackedLayout
from tape.runtime.stop_signals import ignore_stop_signals_in_worker, stop_signals_blocked
from tape.tokenizers import TAPETokenizer

from .batch_schedule import BatchConfig
from .corpus import Corpus
from .packing import EpochPlan, EpochPlanner, PackingConfig, Piece

_STREAM_MASK, _STREAM_BLEND = 3, 5  # random streams; packing.py uses 1 and 2, train/trainer.py 4
_PLANS_KEPT = 2  # workers are at most one epoch apart
_PREFETCH = 4  # micro-batches that a worker prepares ahead


@dataclass(frozen=True)
class SampleConfig:
    """Construction of a sample.

    Attributes:
        seq_length: tokens per row.
        mask_prob: fraction of the residues that are masked and predicted.
        append_sep: encode a protein as ``<cls> residues <sep>``; False for ``<cls> residues`` as in the original.
        long_documents: what happens to proteins longer than a row, ``split`` or ``truncate``.
        seed: seed of the order, the split offsets and the masks.
    """

    seq_length: int = 2176
    mask_prob: float = 0.15
    append_sep: bool = True
    long_documents: str = "split"
    seed: int = 1234

    @property
    def packing(self) -> PackingConfig:
        return PackingConfig(self.seq_length, 2 if self.append_sep else 1, self.long_documents, self.seed)

    def for_corpus(self, number: int) -> SampleConfig:
        """The configuration of a corpus in a blend: orders and masks of two corpora are independent.

        The first corpus (``number`` 0) has the run's seed.
        """
        if number == 0:
            return self
        seed = int(np.random.SeedSequence([_STREAM_BLEND, self.seed, number]).generate_state(1)[0])
        return replace(self, seed=seed)


@dataclass(frozen=True)
class PackedRow:
    """One sample of R proteins with T tokens in total.

    Attributes:
        input_ids: (T,) int64, corrupted.
        labels: (T,) int64, the original id at predicted positions, -1 elsewhere.
        lengths: (R,) tokens per protein.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    lengths: list[int]


@dataclass(frozen=True)
class MicroBatch:
    """Concatenated rows with T tokens and M predictions in total.

    Attributes:
        input_ids: (1, T) int64, corrupted.
        predicted: (M,) int64, positions to predict, ascending.
        labels: (M,) int64, the original ids there.
        layout: the boundaries of the proteins.
        rows: number of concatenated rows.
        padding: padding tokens at the end.
    """

    input_ids: Tensor
    predicted: Tensor
    labels: Tensor
    layout: PackedLayout
    rows: int
    padding: int = 0

    @classmethod
    def empty(cls) -> MicroBatch:
        """A micro-batch of one padding token and no prediction."""
        nothing = torch.empty(0, dtype=torch.int64)
        ids = torch.full((1, 1), TAPETokenizer().pad_id)
        return cls(ids, nothing, nothing, PackedLayout.from_lengths([1]), 0, padding=1)

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[1] - self.padding

    def padded(self, tokens: int) -> MicroBatch:
        """The micro-batch padded to ``tokens`` tokens; padding attends only to padding and is never predicted."""
        missing = tokens - self.input_ids.shape[1]
        if missing <= 0:
            return self
        return replace(
            self,
            input_ids=F.pad(self.input_ids, (0, missing), value=TAPETokenizer().pad_id),
            layout=self.layout.padded(tokens),
            padding=self.padding + missing,
        )

    @property
    def predictions(self) -> int:
        return self.labels.shape[0]

    def to(self, device: torch.device | str) -> MicroBatch:
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            predicted=self.predicted.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            layout=self.layout.to(device, non_blocking=True),
        )

    def pin_memory(self) -> MicroBatch:
        return replace(
            self,
            input_ids=self.input_ids.pin_memory(),
            predicted=self.predicted.pin_memory(),
            labels=self.labels.pin_memory(),
        )


def join_rows(rows: Sequence[PackedRow]) -> MicroBatch:
    """Concatenate samples into a micro-batch, without padding."""
    labels = torch.from_numpy(np.concatenate([row.labels for row in rows]))
    predicted = (labels != IGNORED).nonzero().squeeze(1)
    return MicroBatch(
        input_ids=torch.from_numpy(np.concatenate([row.input_ids for row in rows])).unsqueeze(0),
        predicted=predicted,
        labels=labels[predicted],
        layout=PackedLayout.from_lengths([length for row in rows for length in row.lengths]),
        rows=len(rows),
    )


class Samples(Protocol):
    """The rows of one corpus or several, for training or evaluation; ``samples[i]`` is a pure function of i."""

    @property
    def parts(self) -> tuple[PackedProteins, ...]:
        """The corpora that the rows come from."""

    @property
    def shares(self) -> tuple[int, ...]:
        """Rows per corpus in one period of the blend."""

    @property
    def attended_length(self) -> float:
        """Mean number of tokens that a token attends to: the length-weighted mean length of the proteins."""

    def __len__(self) -> int:
        """Number of rows after which every protein has been seen."""

    def __getitem__(self, sample: int, /) -> PackedRow: ...

    def source(self, sample: int) -> tuple[PackedProteins, int]:
        """The corpus of a row and the row's index in it: ``part.proteins(index)`` lists its proteins."""

    def prepare(self, sample: int) -> None:
        """Plan the epoch of this row ahead of time, so that forked workers share the plan."""


class PackedProteins(Dataset[PackedRow]):
    """The samples of one split of a corpus; ``dataset[i]`` is the i-th row since the start of training.

    Args:
        corpus: the tokenized corpus.
        config: construction of the samples.
        documents: the (first, last + 1) documents of the split; None for all.
        repeat: True for training: one epoch after another, each newly packed and masked. False for evaluation: the rows
            of epoch 0, always with the same masks.

    Raises:
        DataError: if the split contains no document.
    """

    def __init__(
        self, corpus: Corpus, config: SampleConfig, documents: tuple[int, int] | None = None, repeat: bool = True
    ) -> None:
        first, last = documents or (0, len(corpus.document_index) - 1)
        self.corpus = corpus
        self.config = config
        self.repeat = repeat
        self.first_protein = int(corpus.document_index[first])
        sizes = corpus.sizes[self.first_protein : int(corpus.document_index[last])]
        if not len(sizes):
            raise DataError(f"{corpus.prefix}: this split contains no document")
        self.planner = EpochPlanner(sizes, config.packing)
        self._tokenizer = TAPETokenizer()
        self._plans: dict[int, EpochPlan] = {}

    def __len__(self) -> int:
        """Number of rows in the first epoch."""
        return self.planner.rows(0)

    def __getitem__(self, sample: int) -> PackedRow:
        if not self.repeat and sample >= len(self):
            raise IndexError(f"{self.corpus.prefix}: this split has {len(self)} rows, no row {sample}")
        epoch, row = self.planner.locate(sample)
        parts = [self._masked(piece, epoch) for piece in self.plan(epoch).row(row)]
        inputs, labels = zip(*parts, strict=True)
        return PackedRow(np.concatenate(inputs), np.concatenate(labels), [len(part) for part in inputs])

    @property
    def parts(self) -> tuple[PackedProteins, ...]:
        return (self,)

    @property
    def shares(self) -> tuple[int, ...]:
        return (1,)

    @property
    def attended_length(self) -> float:
        return self.planner.attended_length

    def source(self, sample: int) -> tuple[PackedProteins, int]:
        return self, sample

    def prepare(self, sample: int) -> None:
        _ = self.plan(self.planner.locate(sample)[0])

    def plan(self, epoch: int) -> EpochPlan:
        """The rows of an epoch; the most recent plans are cached."""
        if epoch not in self._plans:
            while len(self._plans) >= _PLANS_KEPT:
                del self._plans[min(self._plans)]
            self._plans[epoch] = self.planner.plan(epoch)
        return self._plans[epoch]

    def proteins(self, sample: int) -> list[Piece]:
        """The proteins in a sample, with their indices in the corpus."""
        epoch, row = self.planner.locate(sample)
        return [replace(piece, protein=piece.protein + self.first_protein) for piece in self.plan(epoch).row(row)]

    def _masked(self, piece: Piece, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        protein = piece.protein + self.first_protein
        residues = self.corpus.residues(protein, piece.start, piece.length)
        ends = ([self._tokenizer.cls_id], [self._tokenizer.sep_id] if self.config.append_sep else [])
        ids = np.concatenate([np.array(ends[0]), residues, np.array(ends[1], dtype=np.int64)])
        generator = np.random.default_rng([_STREAM_MASK, self.config.seed, epoch, protein, piece.number])
        return mask_tokens(ids, self._tokenizer, generator, self.config.mask_prob)


class TrainingOrder:
    """Batch sampler of training: the samples of each micro-batch of one data-parallel rank."""

    def __init__(self, batch: BatchConfig, consumed: int, steps: int, rank: int, ranks: int) -> None:
        self.batch, self.consumed, self.steps, self.rank, self.ranks = batch, consumed, steps, rank, ranks

    def __len__(self) -> int:
        samples = self.batch.consumed_samples(self.steps, self.consumed) - self.consumed
        return samples // (self.batch.micro_batch * self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        for begin, _ in self.batch.steps(self.consumed, self.steps):
            for micro in range(self.batch.micro_batches(self.ranks, begin)):
                yield self.samples(begin, micro)

    def samples(self, begin: int, micro: int) -> list[int]:
        """The rows of this rank's micro-batch ``micro`` in the step that starts after ``begin`` samples."""
        first = begin + self.position(micro) * self.batch.micro_batch
        return list(range(first, first + self.batch.micro_batch))

    def position(self, micro: int) -> int:
        """Index of this rank's micro-batch among all micro-batches of the step: the same rows in every layout."""
        return micro * self.ranks + self.rank


class EvaluationOrder:
    """Batch sampler of evaluation: the first ``rows`` samples, distributed over the data-parallel ranks."""

    def __init__(self, rows: int, micro_batch: int, rank: int, ranks: int) -> None:
        self.rows, self.micro_batch, self.rank, self.ranks = rows, micro_batch, rank, ranks

    def __len__(self) -> int:
        return len(self._beginnings())

    def __iter__(self) -> Iterator[list[int]]:
        for first in self._beginnings():
            yield list(range(first, min(first + self.micro_batch, self.rows)))

    def _beginnings(self) -> range:
        return range(self.rank * self.micro_batch, self.rows, self.ranks * self.micro_batch)


class MicroBatches:
    """Data loader of micro-batches; it can be iterated any number of times.

    Args:
        dataset: the samples.
        order: the batch sampler.
        workers: data loader processes; 0 loads in this process.
        pin_memory: whether to copy batches into pinned memory, for transfers to a GPU.
    """

    def __init__(
        self,
        dataset: Samples,
        order: TrainingOrder | EvaluationOrder,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if workers and isinstance(order, TrainingOrder):
            dataset.prepare(order.consumed)  # before the workers are forked, which then share the plan
        self._loader: DataLoader[Any] = DataLoader(
            cast(Dataset[PackedRow], dataset),
            batch_sampler=order,
            collate_fn=join_rows,
            num_workers=workers,
            pin_memory=pin_memory,
            prefetch_factor=_PREFETCH if workers else None,
            worker_init_fn=ignore_stop_signals_in_worker,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[MicroBatch]:
        try:
            with stop_signals_blocked():  # the workers are started here
                batches = iter(self._loader)
            yield from batches
        except ProteinLMError as error:
            # A worker's error arrives with its whole traceback in the text; its last line is the message.
            text = str(error).strip().splitlines()[-1]
            raise type(error)(text.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")) from None


@dataclass(frozen=True)
class GlobalBatch:
    """The rows of one optimizer step.

    Attributes:
        rows: number of rows on all ranks together.
        micro_batches: this rank's micro-batches.
    """

    rows: int
    micro_batches: list[MicroBatch]


class GlobalBatches:
    """Data loader of training: the global batches in order, with this rank's micro-batches.

    Args:
        dataset: the training samples.
        order: the order in which this rank receives them.
        workers, pin_memory: see :class:`MicroBatches`.
    """

    def __init__(self, dataset: Samples, order: TrainingOrder, workers: int = 0, pin_memory: bool = False) -> None:
        self.order = order
        self._loader = MicroBatches(dataset, order, workers, pin_memory)

    def __iter__(self) -> Iterator[GlobalBatch]:
        batch, micro_batches = self.order.batch, iter(self._loader)
        for begin, rows in batch.steps(self.order.consumed, self.order.steps):
            number = batch.micro_batches(self.order.ranks, begin)
            yield GlobalBatch(rows, [next(micro_batches) for _ in range(number)])
