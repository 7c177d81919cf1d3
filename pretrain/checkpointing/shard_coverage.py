"""Checks that the shards of a tensor contain each of its elements exactly once.

The sum of their sizes is not enough: two shards that overlap can leave as many elements without a shard, which then
keep whatever the memory contained.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from tape.errors import CheckpointError, quoted

_MOST_DIMENSIONS = 8  # a shard of d dimensions has 2^d corners

Box = tuple[Sequence[int], Sequence[int]]  # offsets and sizes
Position = tuple[int, ...]


def check_coverage(tensor: str, shape: Sequence[int], shards: Sequence[Box]) -> None:
    """Check that shards are inside a tensor, disjoint, and cover it. Shards without elements are allowed.

    Args:
        tensor: checkpoint and name of the tensor, for messages.
        shape: its shape.
        shards: offsets and sizes of each shard.

    Raises:
        CheckpointError: names the tensor, and the shard or the elements.
    """
    if len(shape) > _MOST_DIMENSIONS:
        raise CheckpointError(f"{tensor} has {len(shape)} dimensions; at most {_MOST_DIMENSIONS} are read")
    for offsets, sizes in shards:
        if not _is_inside(offsets, sizes, shape):
            raise CheckpointError(
                f"{tensor}: a shard at {quoted(tuple(offsets))} of shape {quoted(tuple(sizes))} is not inside its shape"
                f" {tuple(shape)}"
            )
    jumps = _excess_jumps(shape, shards)
    first = min((corner for corner, jump in jumps.items() if jump), default=None)
    if first is None:
        return
    ends = [min(corner[axis] for corner in jumps if corner[axis] > start) for axis, start in enumerate(first)]
    region = ", ".join(f"{start}:{end}" for start, end in zip(first, ends, strict=True))
    number = 1 + jumps[first]
    raise CheckpointError(
        f"{tensor}: elements [{region}] of its shape {tuple(shape)} are in {number or 'no'}"
        f" shard{'s' if number else ''}, not in one"
    )


def _is_inside(offsets: Sequence[int], sizes: Sequence[int], shape: Sequence[int]) -> bool:
    return len(offsets) == len(sizes) == len(shape) and all(
        0 <= start <= start + size <= whole for start, size, whole in zip(offsets, sizes, shape, strict=True)
    )


def _excess_jumps(shape: Sequence[int], shards: Sequence[Box]) -> Counter[Position]:
    """Where the number of shards per element changes otherwise than for a single shard with the whole tensor.

    The number of shards that contain an element is the sum of the jumps at all corners before it, so that all excess
    jumps are 0 if and only if every element is in one shard. If not, the first corner with an excess jump is the first
    element that is not, and the jump is its number of shards minus 1. All this takes linear time.
    """
    jumps: Counter[Position] = Counter()
    for offsets, sizes in shards:
        jumps.update(_jumps(offsets, sizes))
    jumps.subtract(_jumps([0] * len(shape), shape))
    return jumps


def _jumps(offsets: Sequence[int], sizes: Sequence[int]) -> dict[Position, int]:
    """The jumps at the corners of a shard: 1 at the first, and the opposite from each to the next along an edge."""
    if 0 in sizes:
        return {}
    edges = [((start, 1), (start + size, -1)) for start, size in zip(offsets, sizes, strict=True)]
    return {
        tuple(position for position, _ in corner): math.prod(sign for _, sign in corner)
        for corner in itertools.product(*edges)
    }
