"""Batch plans: which proteins form which batch, as pure functions of lengths, sizes, seed and epoch.

A *step* is the global batch of one optimizer update: ``batch_size`` proteins over all ranks and accumulation steps. It
is drawn first and then divided into micro-batches, so the steps are the same on any number of ranks, with any gradient
accumulation and any token budget. (Batch normalization still depends on the division, because it computes its
statistics within one micro-batch.)

A *token budget* limits the size of one micro-batch: its number of proteins times the tokens of the longest one, which
includes padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tape.errors import ConfigError
from tape.tokenizers import SPECIAL_TOKENS_PER_PROTEIN

# Pools of this many batches are sorted by length before they are cut: little padding, yet nearly random batches.
_POOL_BATCHES = 32
# Lengths are jittered by up to this fraction before sorting; a small set would otherwise have the same batches in every
# epoch.
_LENGTH_JITTER = 0.15


@dataclass(frozen=True)
class MicroBatchPlan:
    """One micro-batch of one rank.

    Attributes:
        indices: record numbers.
        counted: False for a placeholder, which a rank runs to take part in the collectives if the step has too few
            proteins for all ranks; its loss has weight 0.
    """

    indices: np.ndarray
    counted: bool = True


Step = list[MicroBatchPlan]


def draw_batches(lengths: np.ndarray, indices: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Divide ``indices`` into shuffled batches of proteins of similar length.

    Args:
        lengths: (N,) number of residues of every protein of the data set.
        indices: record numbers to use.
        batch_size: proteins per batch; one batch may be smaller.
        seed, epoch: seed of the order.

    Returns:
        ceil(len(indices) / batch_size) arrays of record numbers.
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
    """Divide one step into the micro-batches of one rank.

    Every rank gets the same number of micro-batches, at most ``accumulation``; together they have each protein once.
    """
    passes = min(accumulation, -(-batch.size // world_size))
    parts = np.array_split(batch, passes * world_size)
    mine = parts[rank::world_size]
    return [MicroBatchPlan(part) if part.size else MicroBatchPlan(batch[:1], counted=False) for part in mine]


def check_token_budget(lengths: np.ndarray, max_tokens: int | None) -> None:
    """Check that every single protein fits the token budget.

    Args:
        lengths: (N,) number of residues of the proteins to use; all 0 if they are unknown.
        max_tokens: token budget of one micro-batch; None means no limit.

    Raises:
        ConfigError: a protein is too long, or the lengths are unknown. States the number of tokens of the longest.
    """
    if max_tokens is None or lengths.size == 0:
        return
    longest = int(lengths.max())
    if longest == 0:
        raise ConfigError("--max_tokens can't be used: the data set has no index of its proteins' lengths")
    if longest + SPECIAL_TOKENS_PER_PROTEIN > max_tokens:
        raise ConfigError(
            f"--max_tokens {max_tokens} is too small for the longest protein:"
            f" {longest} residues are {longest + SPECIAL_TOKENS_PER_PROTEIN} tokens with <cls> and <sep>"
        )


def cut_by_tokens(lengths: np.ndarray, order: np.ndarray, batch_size: int, max_tokens: int | None) -> list[np.ndarray]:
    """Cut ``order`` into consecutive pieces of at most ``batch_size`` proteins and ``max_tokens`` tokens with padding.

    Args:
        lengths: (N,) number of residues of every protein of the data set.
        order: record numbers, sorted by length for little padding.
        batch_size: maximum number of proteins per piece.
        max_tokens: maximum of proteins times tokens of the longest; a protein that exceeds it is a piece of its own.
    """
    pieces: list[np.ndarray] = []
    start = longest = 0
    for position, tokens in enumerate((lengths[order] + SPECIAL_TOKENS_PER_PROTEIN).tolist()):
        longest, count = max(longest, tokens), position - start + 1
        if count > batch_size or (max_tokens is not None and count > 1 and count * longest > max_tokens):
            pieces.append(order[start:position])
            start, longest = position, tokens
    return [*pieces, order[start:]] if order.size else []


def divide_by_tokens(
    batch: np.ndarray, lengths: np.ndarray, max_tokens: int, accumulation: int, rank: int, world_size: int
) -> Step:
    """As :func:`divide_step`, but into as many micro-batches as the token budget needs, at least ``accumulation``.

    The largest pieces are halved until every rank gets the same number, or until each piece is a single protein.
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
    """Plan the steps of one rank for one training epoch; see :func:`draw_batches` and :func:`divide_step`.

    Args:
        max_tokens: token budget of one micro-batch; None means no limit.

    Raises:
        ConfigError: a single protein exceeds the token budget.
    """
    batches = draw_batches(lengths, indices, batch_size, seed, epoch)
    if max_tokens is None:
        return [divide_step(batch, accumulation, rank, world_size) for batch in batches]
    check_token_budget(lengths[indices], max_tokens)
    return [divide_by_tokens(batch, lengths, max_tokens, accumulation, rank, world_size) for batch in batches]


def plan_evaluation(
    lengths: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1, max_tokens: int | None = None
) -> list[np.ndarray]:
    """Plan the batches of one rank for one pass over all proteins, longest first. Each protein is on exactly one rank
    (bug 12 in docs/compatibility.md).

    Raises:
        ConfigError: a single protein exceeds the token budget.
    """
    check_token_budget(lengths, max_tokens)
    order = np.argsort(-lengths, kind="stable")
    return cut_by_tokens(lengths, order, batch_size, max_tokens)[rank::world_size]
