"""The comparison of CPU operations, at a small size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


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
