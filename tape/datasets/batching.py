"""Which proteins form which batch: pure functions of lengths, sizes, seed and epoch.

A *step* is what one optimizer update sees: ``batch_size`` proteins over all ranks and accumulation steps. It is drawn
first, then divided, so that training sees the same steps on any number of ranks, with any accumulation and under any
token budget. (Batch normalisation is the exception: it takes its statistics from the proteins of one forward pass, so
from each part alone.)

A *token budget* bounds what one forward pass holds: proteins times the tokens of the longest, padding counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tape.errors import ConfigError

# Batches are cut from pools of this many batches sorted by length: less padding, yet nearly random batches.
_POOL_BATCHES = 32
# Lengths are stretched by up to this fraction for sorting, or a small set would meet the same batches every epoch.
_LENGTH_JITTER = 0.15
_SPECIAL_TOKENS = 2  # <cls> and <sep> of each protein


@dataclass(frozen=True)
class MicroBatchPlan:
    """Proteins of one forward pass of one rank.

    Attributes:
        indices: records.
        counted: False for a stand-in that keeps a rank in step when the last batch has too few proteins for all ranks;
            its loss has weight 0.
    """

    indices: np.ndarray
    counted: bool = True


Step = list[MicroBatchPlan]


def draw_batches(lengths: np.ndarray, indices: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Every protein of ``indices`` once, in shuffled batches of similar length.

    Args:
        lengths: (N,) residues of all proteins of the data set.
        indices: records to use.
        batch_size: proteins a batch; the last pool may leave one smaller.
        seed, epoch: of the order.

    Returns:
        ceil(len(indices) / batch_size) arrays of records, each of similar length.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(indices)
    batches: list[np.ndarray] = []
    pool = batch_size * _POOL_BATCHES
    for start in range(0, shuffled.size, pool):
        members = shuffled[start : start + pool]
        key = lengths[members] * (1.0 + _LENGTH_JITTER * rng.random(members.size))
        members = members[np.argsort(key, kind="stable")]
        batches.extend(members[i : i + batch_size] for i in range(0, members.size, batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]


def divide_step(batch: np.ndarray, accumulation: int, rank: int, world_size: int) -> Step:
    """The micro-batches of one rank for one step.

    All ranks get the same number of micro-batches, at most ``accumulation``; together they hold each protein once.
    """
    passes = min(accumulation, -(-batch.size // world_size))
    parts = np.array_split(batch, passes * world_size)
    mine = parts[rank::world_size]
    return [MicroBatchPlan(part) if part.size else MicroBatchPlan(batch[:1], counted=False) for part in mine]


def check_token_budget(lengths: np.ndarray, max_tokens: int | None) -> None:
    """Refuse a budget that some protein exceeds by itself, or that can't be kept for want of lengths.

    Args:
        lengths: (N,) residues of the proteins that will be used; all 0 where they are not known.
        max_tokens: of one forward pass; None means no limit.

    Raises:
        ConfigError: says what the longest protein needs.
    """
    if max_tokens is None or lengths.size == 0:
        return
    longest = int(lengths.max())
    if longest == 0:
        raise ConfigError("--max_tokens can't be used: the data set does not tell its proteins' lengths")
    if longest + _SPECIAL_TOKENS > max_tokens:
        raise ConfigError(
            f"--max_tokens {max_tokens} is less than the longest protein needs:"
            f" {longest} residues are {longest + _SPECIAL_TOKENS} tokens with <cls> and <sep>"
        )


def cut_by_tokens(lengths: np.ndarray, order: np.ndarray, batch_size: int, max_tokens: int | None) -> list[np.ndarray]:
    """Consecutive pieces of ``order`` of at most ``batch_size`` proteins and ``max_tokens`` padded tokens.

    Args:
        lengths: (N,) residues of all proteins of the data set.
        order: records, sorted by length either way if little padding is wanted.
        batch_size: proteins a piece.
        max_tokens: proteins of a piece times the tokens of its longest; a protein over it stands alone.
    """
    pieces: list[np.ndarray] = []
    start = longest = 0
    for position, tokens in enumerate((lengths[order] + _SPECIAL_TOKENS).tolist()):
        longest, count = max(longest, tokens), position - start + 1
        if count > batch_size or (max_tokens is not None and count > 1 and count * longest > max_tokens):
            pieces.append(order[start:position])
            start, longest = position, tokens
    return [*pieces, order[start:]] if order.size else []


def divide_by_tokens(
    batch: np.ndarray, lengths: np.ndarray, max_tokens: int, accumulation: int, rank: int, world_size: int
) -> Step:
    """As :func:`divide_step`, in as many micro-batches as the token budget needs (``accumulation`` at least).

    The largest pieces are halved until every rank gets the same number, unless each holds one protein already.
    """
    ordered = batch[np.argsort(lengths[batch], kind="stable")]
    pieces = cut_by_tokens(lengths, ordered, batch.size, max_tokens)
    wanted = max(min(accumulation, -(-batch.size // world_size)), -(-len(pieces) // world_size)) * world_size
    while len(pieces) < min(wanted, batch.size):
        largest = max(range(len(pieces)), key=lambda number: pieces[number].size)
        pieces[largest : largest + 1] = np.array_split(pieces[largest], 2)
    step = [MicroBatchPlan(piece) for piece in pieces]
    step += [MicroBatchPlan(ordered[:1], counted=False)] * (wanted - len(step))
    return step[rank::world_size]


def plan_epoch(
    lengths: np.ndarray,
    indices: np.ndarray,
    *,
    batch_size: int,
    accumulation: int = 1,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    epoch: int = 0,
    max_tokens: int | None = None,
) -> list[Step]:
    """One rank's steps of one training epoch; see :func:`draw_batches`, :func:`divide_step`.

    Args:
        max_tokens: token budget of one forward pass; None: steps are divided by ``accumulation`` alone.

    Raises:
        ConfigError: a protein exceeds the budget by itself.
    """
    batches = draw_batches(lengths, indices, batch_size, seed, epoch)
    if max_tokens is None:
        return [divide_step(batch, accumulation, rank, world_size) for batch in batches]
    check_token_budget(lengths[indices], max_tokens)
    return [divide_by_tokens(batch, lengths, max_tokens, accumulation, rank, world_size) for batch in batches]


def plan_evaluation(
    lengths: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1, max_tokens: int | None = None
) -> list[np.ndarray]:
    """One rank's batches for a single pass over all proteins, longest first; no protein on two ranks (defect 12).

    Raises:
        ConfigError: a protein exceeds the token budget by itself.
    """
    check_token_budget(lengths, max_tokens)
    order = np.argsort(-lengths, kind="stable")
    return cut_by_tokens(lengths, order, batch_size, max_tokens)[rank::world_size]


class PlannedBatches:
    """Batch sampler over a plan."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            yield batch.tolist()
