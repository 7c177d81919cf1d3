"""Sizes of packed rows where each shape of a matrix product has a kernel of its own."""

from __future__ import annotations

import pytest
import torch

from tape.models import low_precision
from tape.models.kernel_shapes import compiles_each_shape, rounded_size


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
