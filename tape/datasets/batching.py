"""Which proteins form which batch: pure functions of lengths, sizes, seed and epoch.

A *step* is what one optimizer update sees: ``batch_size`` proteins over all ranks and accumulation steps. It is drawn
first, then divided, so that training sees the same steps on any number of ranks and with any accumulation. (Batch
normalisation is the exception: it takes its statistics from the proteins of one forward pass, so from each part alone.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Batches are cut from pools of this many batches sorted by length: less padding, yet nearly random batches.
_POOL_BATCHES = 32
# Lengths are stretched by up to this fraction for sorting, or a small set would meet the same batches every epoch.
_LENGTH_JITTER = 0.15


@dataclass(frozen=True)
class MicroBatch:
    """Proteins of one forward pass of one rank.

    Attributes:
        indices: records.
        counted: False for a stand-in that keeps a rank in step when the last batch has too few proteins for all ranks;
            its loss has weight 0.
    """

    indices: np.ndarray
    counted: bool = True


Step = list[MicroBatch]


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
    return [MicroBatch(part) if part.size else MicroBatch(batch[:1], counted=False) for part in mine]


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
) -> list[Step]:
    """One rank's steps of one training epoch; see :func:`draw_batches` and :func:`divide_step`."""
    batches = draw_batches(lengths, indices, batch_size, seed, epoch)
    return [divide_step(batch, accumulation, rank, world_size) for batch in batches]


def plan_evaluation(lengths: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1) -> list[np.ndarray]:
    """One rank's batches for a single pass over all proteins, longest first; no protein on two ranks (defect 12)."""
    order = np.argsort(-lengths, kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, order.size, batch_size)]
    return batches[rank::world_size]


class PlannedBatches:
    """Batch sampler over a plan."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            yield batch.tolist()
