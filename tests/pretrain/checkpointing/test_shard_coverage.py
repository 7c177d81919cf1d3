"""Shards must contain each element of their tensor exactly once; holes and overlaps are found whatever their sizes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.checkpointing.shard_coverage import Box, check_coverage
from tape.errors import CheckpointError


@pytest.mark.parametrize(
    ("shape", "shards"),
    [
        ((), [((), ())]),
        ((4,), [((0,), (4,))]),
        ((3,), [((0,), (1,)), ((1,), (1,)), ((2,), (1,)), ((3,), (0,))]),  # FSDP over more ranks than rows
        ((0, 4), [((0, 0), (0, 4)), ((0, 0), (0, 4))]),
        ((4, 4), [((2, 0), (2, 4)), ((0, 0), (2, 2)), ((0, 2), (2, 2))]),
        ((3, 3), [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]),
    ],
)
def test_shards_that_cover_a_tensor_once_are_accepted(shape: tuple[int, ...], shards: list[Box]) -> None:
    check_coverage("w", shape, shards)


@pytest.mark.parametrize(
    ("shape", "shards", "message"),
    [
        ((), [], "elements [] of its shape () are in no shard"),
        ((), [((), ()), ((), ())], "are in 2 shards"),
        ((8,), [((0,), (4,)), ((2,), (4,))], "elements [2:4] of its shape (8,) are in 2 shards, not in one"),
        ((8,), [((0,), (2,)), ((4,), (4,)), ((6,), (2,))], "elements [2:4] of its shape (8,) are in no shard"),
        ((4, 6), [((0, 0), (4, 3)), ((0, 3), (2, 3))], "elements [2:4, 3:6] of its shape (4, 6) are in no shard"),
        ((4, 4), [((0, 0), (4, 4))] * 3, "elements [0:4, 0:4] of its shape (4, 4) are in 3 shards"),
        ((4,), [((0,), (4,)), ((2,), (3,))], "a shard at (2,) of shape (3,) is not inside its shape (4,)"),
        ((4,), [((0,), (4,)), ((2,), (-1,))], "a shard at (2,) of shape (-1,) is not inside"),
        ((4,), [((0, 0), (4, 1))], "is not inside its shape (4,)"),
        ((1,) * 9, [((0,) * 9, (1,) * 9)], "has 9 dimensions; at most 8 are read"),
    ],
)
def test_holes_and_overlaps_are_located(shape: tuple[int, ...], shards: list[Box], message: str) -> None:
    with pytest.raises(CheckpointError, match=r"\Aiter_0000001: w.*" + re.escape(message)):
        check_coverage("iter_0000001: w", shape, shards)


def boxes(shape: tuple[int, ...]) -> st.SearchStrategy[Box]:
    edges = st.tuples(*(st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted) for size in shape))
    return edges.map(lambda pairs: (tuple(a for a, _ in pairs), tuple(b - a for a, b in pairs)))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_result_equals_a_count_per_element(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    shards = data.draw(st.lists(boxes(shape), max_size=4))
    counts = np.zeros(shape, dtype=int)
    for offsets, sizes in shards:
        counts[tuple(slice(start, start + size) for start, size in zip(offsets, sizes, strict=True))] += 1
    if (counts == 1).all():
        check_coverage("w", shape, shards)
        return
    with pytest.raises(CheckpointError) as error:
        check_coverage("w", shape, shards)
    region, number = re.findall(r"elements \[(.*)\] of its .* are in (\w+)", str(error.value))[0]
    place = tuple(slice(*map(int, edge.split(":"))) for edge in region.split(", ") if edge)
    assert set(np.unique(counts[place])) == {0 if number == "no" else int(number)}
