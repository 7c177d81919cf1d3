"""The memory benchmark of contact prediction at tiny sizes: memory grows as documented, and the limit holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import contact_memory
from benchmarks.contact_memory import Measurement

SIZE = ["--hidden", "256", "--layers", "1"]


def test_memory_of_the_pair_tensor_grows_with_the_square_of_the_length(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--heads", "pair_tensor", "--lengths", "900", "220", "20", "--limit-gb", "1.5"]
    contact_memory.main([*words, *SIZE, "--json", str(tmp_path / "curve.json")])
    short, long = (Measurement(**point) for point in json.loads((tmp_path / "curve.json").read_text()))
    assert (short.length, long.length) == (20, 220)
    one_copy = 220**2 * 2 * 256 * 4 / 1e9  # of L x L x 2H in fp32
    assert 2 * one_copy < long.peak_gb - short.peak_gb < 20 * one_copy
    shown = capfd.readouterr().out
    assert re.search(r"pair_tensor +900  skipped: would take about \d+ GB", shown)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("|")]
    assert [row[0] for row in cells] == ["residues", "--:", "20", "220", "900"]
    assert cells[3][1] == f"{long.peak_gb:.2f} GB, {long.seconds:.1f} s"
    assert cells[4][1] == "-"


def test_after_a_measurement_over_the_limit_the_next_head_is_measured(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    really = contact_memory.run_one
    points = {
        ("linear", 900): Measurement("linear", 900, 0.5, 0.1),  # not measured: a process costs seconds
        ("resnet", 900): "failed with exit code -9",
    }
    monkeypatch.setattr(contact_memory, "run_one", lambda *place: points.get(place[:2]) or really(*place))
    contact_memory.main(["--heads", "pair_tensor", "resnet", "linear", "--lengths", "900", "--limit-gb", "1.5", *SIZE])
    lines = [line.split(maxsplit=2) for line in capfd.readouterr().out.splitlines()]
    assert lines[1] == ["pair_tensor", "900", "over 1.5 GB"]  # its smallest copy has 1.7 GB
    assert lines[2] == ["resnet", "900", "failed with exit code -9"]
    assert lines[3] == ["linear", "900", "0.50 GB      0.1 s"]


@pytest.mark.parametrize("head", contact_memory.HEADS)
def test_every_head_completes_a_training_step(head: str) -> None:
    found = contact_memory.measure(head, 6, 64, 1)
    assert (found.head, found.length) == (head, 6)
    assert found.peak_gb > 0.05


def test_expected_memory_is_extrapolated_quadratically() -> None:
    curve = [Measurement("x", length, 1 + length**2 / 1e4, 0.0) for length in (100, 200)]
    assert contact_memory.expected_gb(curve, 300) == pytest.approx(10.0)
    assert contact_memory.expected_gb(curve[:1], 300) == 0.0
