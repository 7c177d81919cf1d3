"""The comparison of CPU operations, at a small size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.cpu_timing import compare_operations
from tape.models import attention, low_precision


@pytest.mark.slow
def test_every_operation_is_timed_in_both_implementations(repository_root: Path, tmp_path: Path) -> None:
    script, file = repository_root / "benchmarks" / "cpu_operations.py", tmp_path / "times.json"
    command = [sys.executable, str(script), "--repeats", "1", "--tokens", "300", "--json", str(file)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    results = json.loads(file.read_text())
    assert {(result["operation"], result["precision"]) for result in results} == {
        (operation, precision)
        for precision in ("fp32", "bf16")
        for operation in (
            "linear map of 8,704 tokens",
            "attention, 8 heads of 64, 68 tokens",
            "attention, 8 heads of 64, 68 tokens, dropout",
            "attention, 8 heads of 64, 272 tokens",
            "attention, 8 heads of 64, 272 tokens, dropout",
            "GELU, tanh form",
            "dropout",
            "convolution of width 3, 512 to 3 channels",
            "loss of all pairs of 300 residues",
        )
    }
    assert all(result["torch"] > 0 and result["ours"] > 0 for result in results)
    assert output.count("\n| ") == len(results) + 1


def test_the_attention_that_is_timed_is_the_one_that_models_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16, where the processor has it, and with dropout: eager, but without dropout only up to 1,024 tokens."""
    eager, used = attention._eager, set()

    def recorded(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, *rest: Any) -> Tensor:
        used.add((query.shape[1], query.dtype, dropout > 0))
        return eager(query, key, value, mask, dropout, *rest)

    monkeypatch.setattr(attention, "_eager", recorded)
    monkeypatch.setattr(low_precision, "is_native", lambda dtype: True)
    list(compare_operations(1088, 0))
    halves = {(length, torch.bfloat16, False) for length in (68, 272)}
    assert used == halves | {(n, dtype, True) for n in (68, 272, 1088) for dtype in (torch.float32, torch.bfloat16)}
