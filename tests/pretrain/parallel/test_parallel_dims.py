"""Coordinates of ranks, layers of stages, and which layouts are possible."""

from __future__ import annotations

import pytest

from pretrain.parallel import ParallelDims
from tape.errors import ConfigError


def test_tensor_parallel_ranks_are_adjacent() -> None:
    dims = ParallelDims(12, tensor=2, pipeline=3)
    assert dims.data == 2
    assert [dims.coordinates(rank) for rank in (0, 1, 2, 4, 11)] == [
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (1, 0, 0),
        (2, 1, 1),
    ]
    assert len({dims.coordinates(rank) for rank in range(12)}) == 12


def test_layers_are_divided_evenly_among_stages() -> None:
    for layers, stages in ((4, 4), (7, 3), (16, 2), (5, 1)):
        dims = ParallelDims(stages, pipeline=stages)
        parts = [dims.layers_of(stage, layers) for stage in range(stages)]
        assert [layer for part in parts for layer in part] == list(range(layers))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_layout_is_printed_with_its_sizes() -> None:
    dims = ParallelDims(8, 2, 2, True, True)
    assert str(dims) == "8 processes = pipeline 2 x data 2 (FSDP) x tensor 2 (sequence parallel)"
    assert not ParallelDims(2, sequence_parallel=True).sequence_parallel_enabled  # one rank has all tokens
    assert not ParallelDims(2, 2, fsdp=True).fsdp_enabled


def test_impossible_layouts_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not divide the 6 processes; start a multiple of 4"):
        ParallelDims(6, 2, 2)
    with pytest.raises(ConfigError, match="positive"):
        ParallelDims(2, pipeline=0)
