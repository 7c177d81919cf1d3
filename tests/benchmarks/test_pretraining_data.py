"""The benchmarks of packing, preprocessing and pretraining throughput, at tiny sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import packing, preprocessing, pretraining_throughput
from pretrain.data.preprocessing import preprocess


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("benchmark") / "x.fasta"
    proteins = ["".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=size)) for size in range(20, 80)]
    path.write_text("".join(f">p{i}\n{protein[:50]}\n{protein[50:]}\n" for i, protein in enumerate(proteins)))
    return path


def test_packing_benchmark_counts_rows_and_used_positions(fasta: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = preprocess([fasta], fasta.parent / "x").prefix
    packing.main([str(prefix), "--seq-length", "256"])
    assert "rows of 256: 60 proteins, each whole and once, in" in capsys.readouterr().out
    result = packing.measure(np.full(100, 62), 128)  # two a row, whichever way
    assert (result.rows, result.used, result.next_fit_used) == (50, 1.0, 1.0)
    assert packing.measure(np.array([100, 20] * 50), 124).next_fit_used < 1.0


def test_preprocessing_benchmark_compares_with_a_plain_loop(fasta: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preprocessing.main([str(fasta), "--workers", "1"])
    plain, ours, decompression, reading = capsys.readouterr().out.splitlines()
    assert plain.startswith("plain Python loop")
    assert plain.endswith("1.00 x")
    assert "preprocess_data, 1 worker" in ours
    assert decompression.startswith("decompression alone")
    assert reading.startswith("reading alone")


def test_throughput_benchmark_prints_model_flops_utilization(fasta: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = preprocess([fasta], fasta.parent / "t").prefix
    tiny = ["--seq-length", "128", "--head-size", "8", "--steps", "2", "--peak-tflops", "1"]
    pretraining_throughput.main([str(prefix), "--sizes", "16x1", "--precisions", "fp32", *tiny])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[:4] == ["16", "x", "1", "fp32"]
    assert "of 1 TFLOP/s" in line
