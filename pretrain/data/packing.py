"""Sequence packing: every protein of an epoch appears exactly once, in rows that are nearly full.

A protein costs its residues plus its special tokens, a row has ``seq_length`` tokens, and no protein is cut to fill a
row. Best-fit-decreasing packing works on the histogram of lengths instead of on single proteins (Krell et al. 2021,
"Efficient sequence packing without cross-contamination", section 3), so that millions of proteins take seconds. The
assignment of proteins to slots of their length and the order of the rows are shuffled in every epoch. Everything is a
pure function of (lengths, seed, epoch): nothing is cached in files, and a resumed run has the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, quoted

LONG_DOCUMENT_RULES = ("split", "truncate")
# First entry of every seed sequence; it separates the random streams of different purposes.
_STREAM_SPLIT, _STREAM_ORDER = 1, 2


@dataclass(frozen=True)
class PackingConfig:
    """Settings of sequence packing.

    Attributes:
        seq_length: tokens per row.
        special_tokens: tokens that every protein costs besides its residues (2: ``<cls>`` and ``<sep>``).
        long_documents: treatment of proteins longer than a row. ``split`` cuts one into as few pieces as possible,
            at an offset drawn in every epoch; each piece is a separate sample. ``truncate`` keeps its beginning.
        seed: seed of the order and the offsets.
    """

    seq_length: int
    special_tokens: int = 2
    long_documents: str = "split"
    seed: int = 1234

    def __post_init__(self) -> None:
        if self.long_documents not in LONG_DOCUMENT_RULES:
            raise ConfigError(
                f"unknown rule {quoted(self.long_documents)} for long documents; choose one of {LONG_DOCUMENT_RULES}"
            )
        if self.capacity < 1:
            raise ConfigError(f"seq_length {self.seq_length} leaves no room for a residue")

    @property
    def capacity(self) -> int:
        """Maximum number of residues of a piece."""
        return self.seq_length - self.special_tokens


@dataclass(frozen=True)
class Piece:
    """A protein or a piece of a long one.

    Attributes:
        protein: number of the protein.
        start: first residue.
        length: number of residues.
        number: number of the piece within its protein, from 0.
    """

    protein: int
    start: int
    length: int
    number: int


@dataclass(frozen=True)
class _Pieces:
    """The pieces of an epoch: the first pieces of the n proteins, then the further pieces of long proteins."""

    lengths: np.ndarray  # (n + further,) int32
    further_protein: np.ndarray
    further_start: np.ndarray
    further_number: np.ndarray

    def piece(self, index: int, proteins: int) -> Piece:
        length = int(self.lengths[index])
        if index < proteins:
            return Piece(index, 0, length, 0)
        further = index - proteins
        start, number = int(self.further_start[further]), int(self.further_number[further])
        return Piece(int(self.further_protein[further]), start, length, number)


@dataclass(frozen=True)
class EpochPlan:
    """The rows of one epoch.

    Attributes:
        proteins: number of proteins that were packed.
    """

    proteins: int
    _pieces: _Pieces
    _assigned: np.ndarray  # (slots,) piece in every slot, ordered by row
    _row_starts: np.ndarray  # (rows + 1,) first slot of each row
    _row_order: np.ndarray  # (rows,) permutation

    @property
    def rows(self) -> int:
        return len(self._row_order)

    @property
    def pieces(self) -> int:
        return len(self._assigned)

    def row(self, number: int) -> list[Piece]:
        """The pieces of a row, longest first. Proteins are numbered from 0 in the order of the planner's sizes."""
        row = self._row_order[number]
        slots = self._assigned[self._row_starts[row] : self._row_starts[row + 1]]
        return [self._pieces.piece(int(index), self.proteins) for index in slots]


class EpochPlanner:
    """Packs the proteins of any epoch into rows.

    Args:
        sizes: (n,) residues of each protein. Proteins without residues are skipped.
        config: settings of the packing.

    Raises:
        DataError: if no protein has a residue.
    """

    def __init__(self, sizes: np.ndarray, config: PackingConfig) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int32)
        self.config = config
        self._long = np.flatnonzero(self.sizes > config.capacity)
        if not (self.sizes > 0).any():
            raise DataError("there is no protein with residues to train on; check --split")
        self._row_counts: list[int] = []

    @property
    def long_documents(self) -> int:
        """Number of proteins longer than a row."""
        return len(self._long)

    @property
    def tokens(self) -> int:
        """Number of tokens of the first epoch, including special tokens."""
        costs = self._costs(self._cut(0)).astype(np.int64)
        return int(costs[costs > self.config.special_tokens].sum())

    @property
    def attended_length(self) -> float:
        """Number of tokens that a token attends to, averaged over the tokens of the first epoch.

        The floating-point operations of attention are proportional to it.
        """
        costs = self._costs(self._cut(0)).astype(np.float64)
        costs = costs[costs > self.config.special_tokens]
        return float((costs**2).sum() / costs.sum())

    def plan(self, epoch: int) -> EpochPlan:
        """Pack the rows of an epoch (0, 1, ...)."""
        pieces = self._cut(epoch)
        costs = self._costs(pieces)
        slot_costs, row_starts = _slots(_pack(self._histogram(costs), self.config.seq_length))
        generator = np.random.default_rng([_STREAM_ORDER, self.config.seed, epoch])
        # Radix sorts group slots and shuffled pieces by cost: the i-th slot of each cost gets the i-th piece of it.
        shuffled = generator.permutation(len(costs)).astype(np.int32)
        shuffled = shuffled[costs[shuffled] > self.config.special_tokens]
        assigned = np.empty(len(shuffled), dtype=np.int32)
        assigned[np.argsort(slot_costs, kind="stable")] = shuffled[np.argsort(costs[shuffled], kind="stable")]
        order = generator.permutation(len(row_starts) - 1)
        return EpochPlan(len(self.sizes), pieces, assigned, row_starts, order)

    def rows(self, epoch: int) -> int:
        """Number of rows of an epoch, without assigning proteins to them."""
        varies = len(self._long) and self.config.long_documents == "split"
        while len(self._row_counts) <= (epoch if varies else 0):
            costs = self._costs(self._cut(len(self._row_counts)))
            groups = _pack(self._histogram(costs), self.config.seq_length)
            self._row_counts.append(sum(count for _, count in groups))
        return self._row_counts[epoch if varies else 0]

    def locate(self, sample: int) -> tuple[int, int]:
        """(epoch, row within the epoch) of row number ``sample`` of the run."""
        epoch = 0
        while sample >= self.rows(epoch):
            sample -= self.rows(epoch)
            epoch += 1
        return epoch, sample

    def _histogram(self, costs: np.ndarray) -> np.ndarray:
        counts = np.bincount(costs, minlength=self.config.seq_length + 1)
        counts[: self.config.special_tokens + 1] = 0  # proteins without residues
        return counts

    def _costs(self, pieces: _Pieces) -> np.ndarray:
        """Tokens of each piece, in the smallest dtype: stable argsort is a fast radix sort up to 16 bits."""
        dtype: Any = np.uint16 if self.config.seq_length < 1 << 16 else np.int32
        return (pieces.lengths + self.config.special_tokens).astype(dtype)

    def _cut(self, epoch: int) -> _Pieces:
        """Cut long proteins into pieces.

        A protein of n residues becomes k = ceil(n / capacity) pieces. The length of the first is random among those
        for which k - 1 further pieces suffice; the following pieces are full, and the last one has the remainder.
        """
        capacity = self.config.capacity
        lengths = np.minimum(self.sizes, capacity)
        none = np.zeros(0, dtype=np.int32)
        if not len(self._long) or self.config.long_documents == "truncate":
            return _Pieces(lengths, none, none, none)
        sizes = self.sizes[self._long].astype(np.int64)
        further = -(-sizes // capacity) - 1
        generator = np.random.default_rng([_STREAM_SPLIT, self.config.seed, epoch])
        first = generator.integers(sizes - further * capacity, capacity, endpoint=True)
        lengths[self._long] = first
        owner = np.repeat(np.arange(len(sizes)), further)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(further) - further, further) + 1
        start = first[owner] + (number - 1) * capacity
        rest = np.minimum(sizes[owner] - start, capacity).astype(np.int32)
        return _Pieces(np.concatenate([lengths, rest]), self._long[owner], start, number)


# Content of an incomplete row: its runs (cost, repeats), newest first, as a linked list that rows share.
_Runs = tuple[int, int, Any]


def _pack(counts: np.ndarray, seq_length: int) -> list[tuple[_Runs, int]]:
    """Best-fit decreasing: each item goes into the fullest row that it fits into, or else into a new row.

    Rows with equal content are handled together. Bit i of ``available`` is set if there are rows with i free tokens,
    so the best fit is the lowest set bit at or above the item's cost.

    Args:
        counts: (seq_length + 1,) number of items of each cost.
        seq_length: tokens of an empty row.

    Returns:
        Pairs of a row's content and the number of rows with that content.
    """
    rows_by_space: list[list[tuple[_Runs | None, int]]] = [[] for _ in range(seq_length + 1)]
    available = 0
    for cost in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[cost])
        while left:
            fitting = available >> cost
            space = cost + (fitting & -fitting).bit_length() - 1 if fitting else seq_length
            runs, rows = rows_by_space[space].pop() if fitting else (None, -(-left // (seq_length // cost)))
            repeats = min(space // cost, left)
            filled = min(rows, left // repeats)
            left -= filled * repeats
            if rows > filled and fitting:
                rows_by_space[space].append((runs, rows - filled))
            elif fitting and not rows_by_space[space]:
                available &= ~(1 << space)
            remaining = space - repeats * cost
            rows_by_space[remaining].append(((cost, repeats, runs), filled))
            available |= 1 << remaining
    return [(runs, rows) for groups in rows_by_space for runs, rows in groups if runs is not None]


def _slots(groups: list[tuple[_Runs, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The cost of every slot, (slots,) uint16 or int32, and the first slot of each row, (rows + 1,) int64."""
    costs, sizes = [], []
    for runs, rows in groups:
        content = _content(runs)
        costs.append(np.tile(np.array(content, dtype=np.int32), rows))
        sizes.append(np.full(rows, len(content), dtype=np.int64))
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(sizes))])
    slot_costs = np.concatenate(costs)
    return slot_costs.astype(np.uint16) if slot_costs.max() < 1 << 16 else slot_costs, starts


def _content(runs: _Runs | None) -> list[int]:
    """The costs of the items of a row, largest first."""
    parts: list[list[int]] = []
    while runs is not None:
        cost, repeats, runs = runs
        parts.append([cost] * repeats)
    return [cost for part in reversed(parts) for cost in part]
