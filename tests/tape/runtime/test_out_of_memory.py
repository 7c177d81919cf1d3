"""Running out of memory is one error that names the size of the pass and the options that help."""

from __future__ import annotations

import pytest
import torch

from tape.errors import ConfigError
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory

REMEDIES = MemoryRemedies(("a smaller --batch_size", "--max_tokens N"), ("--bf16",))
CPU = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"
)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), "memory"),
        (RuntimeError(CPU), "memory"),
        (RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0."), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "GPU memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "GPU memory"),
    ],
)
def test_every_kind_of_error_has_the_same_message(error: Exception, memory: str) -> None:
    with pytest.raises(ConfigError) as raised, explain_out_of_memory("the forward pass", (4, 90), REMEDIES):
        raise error
    assert str(raised.value) == (
        f"out of {memory} with 4 proteins of up to 90 tokens in the forward pass; "
        "give a smaller --batch_size, or --max_tokens N, or --bf16"
    )


def test_the_allocator_of_this_torch_is_recognized() -> None:
    with pytest.raises(ConfigError, match="out of memory with"), explain_out_of_memory("a pass", (1, 2), REMEDIES):
        torch.empty(1 << 60)


def test_a_single_protein_is_never_told_to_use_smaller_batches() -> None:
    with pytest.raises(ConfigError) as raised, explain_out_of_memory("the forward pass", (1, 90), REMEDIES):
        raise MemoryError
    assert str(raised.value) == "out of memory with 1 protein of 90 tokens in the forward pass; give --bf16"


def test_without_remedies_and_without_a_size() -> None:
    with pytest.raises(ConfigError) as raised, explain_out_of_memory("the optimizer step", None, MemoryRemedies()):
        raise MemoryError
    assert str(raised.value) == (
        "out of memory in the optimizer step; a smaller model or a machine with more memory is needed"
    )


def test_other_errors_are_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explain_out_of_memory("a pass", (1, 2), REMEDIES):
        raise RuntimeError("shapes differ")
