"""Sizes of packed rows where each shape of a matrix product has a kernel of its own."""

from __future__ import annotations

import pytest
import torch

from tape.models import low_precision
from tape.models.kernel_shapes import compiles_each_shape, needs_few_shapes, rounded_size


def test_sizes_are_few_and_hardly_larger_than_needed() -> None:
    needed = range(1 << 14)
    sizes = [rounded_size(size) for size in needed]
    assert all(size <= rounded <= size * 17 / 16 for size, rounded in zip(needed, sizes, strict=True))
    assert sizes == [rounded_size(size) for size in sizes]
    assert len({size for size in sizes if 4096 < size <= 8192}) == 16
    assert sizes[:33] == list(range(33))


@pytest.mark.parametrize("native", [True, False])
def test_only_half_precision_on_a_cpu_has_kernels_for_each_shape(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_precision, "is_fast", lambda device, dtype: native)
    cpu = torch.device("cpu")
    assert compiles_each_shape(cpu, torch.bfloat16) == native
    assert not compiles_each_shape(cpu, torch.float32)
    assert not compiles_each_shape(torch.device("cuda"), torch.bfloat16)


def test_a_captured_graph_has_the_shapes_of_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no question that torch.compile can't trace, which would break the graph."""
    monkeypatch.setattr(low_precision, "is_fast", lambda device, dtype: True)
    values = torch.ones(3, dtype=torch.bfloat16)
    assert needs_few_shapes(values)
    answers: list[bool] = []

    def record(given: torch.Tensor) -> torch.Tensor:
        answers.append(needs_few_shapes(given))
        return given + 1

    monkeypatch.setattr(low_precision, "is_fast", lambda device, dtype: pytest.fail("asked while a graph is captured"))
    torch.func.vmap(record)(values.unsqueeze(0))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    record(values)
    assert answers == [False, False]
