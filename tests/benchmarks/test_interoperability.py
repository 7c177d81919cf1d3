"""The exchange of files with other programs: the converter's directions, and transformers where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import interoperability
from benchmarks.clients.client import Check, Client, largest_difference, run_client
from benchmarks.clients.directions import POST_LAYER_NORM, PRE_LAYER_NORM, conversions, matrix
from benchmarks.clients.hugging_face import TRANSFORMERS
from benchmarks.interoperability import CLIENTS, main
from tape.errors import ProteinLMError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_direction_of_the_converter_is_exact_and_documented(tmp_path: Path) -> None:
    results = list(conversions(tmp_path))
    assert len(results) == len(PRE_LAYER_NORM) ** 2 + len(POST_LAYER_NORM) ** 2
    for result in results:
        assert result.difference is not None
        assert result.difference < 1e-12, result
    # headers are equal; of a row, the source, since last digits depend on the processor
    rows = [line for line in matrix(results) if line and not line.startswith("|:--")]
    shown = [line if line.startswith("| from") else line.split(" | ")[0] + " | " for line in rows]
    documented = (ROOT / "docs" / "conversion.md").read_text().splitlines()
    for start in shown:
        assert any(line.startswith(start) for line in documented), start


@pytest.mark.slow
def test_transformers_computes_the_same_from_the_files_of_both_sides(tmp_path: Path) -> None:
    """The version of this environment; the command installs another one."""
    pytest.importorskip("transformers")
    results = list(run_client(TRANSFORMERS, tmp_path, lambda _: Path(sys.executable)))
    assert len(results) == len(TRANSFORMERS.checks)
    assert [result for result in results if not result.passed] == []


def test_clients_that_are_not_installed_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--no-install", "--environments", str(tmp_path / "absent"), "--json", str(tmp_path / "x.json")]
    main(["--clients", *CLIENTS, *words])
    shown = capsys.readouterr().out
    for client in CLIENTS.values():
        for check in client.checks:
            line = f"| {client.name} | {check.direction} | {check.compared} | not run: {tmp_path}/absent/"
            assert line in shown
    written = json.loads((tmp_path / "x.json").read_text())["results"]
    assert {result["difference"] for result in written} == {None}


def client_of(*checks: Check, worker: str = "benchmarks.clients.inputs") -> Client:
    return Client("c", worker, "none", lambda folder: np.savez(folder / "outputs.npz", x=np.ones(2)), checks)


def test_a_difference_beyond_its_tolerance_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = client_of(
        Check("there", "x", lambda _, outputs: largest_difference(outputs["x"], np.zeros(2)), 1.0),
        Check("here", "x", lambda _, outputs: largest_difference(outputs["x"], np.zeros(2)), 0.5),
    )
    monkeypatch.setattr(interoperability, "CLIENTS", {"biotrainer": client})
    monkeypatch.setattr(interoperability, "_python", lambda *_: Path(sys.executable))
    with pytest.raises(ProteinLMError, match="1 of 2 differences exceed their tolerance"):
        main(["--clients", "biotrainer"])
    assert "| c | here | x | 1.0e+00 (more than 5e-01) |" in capsys.readouterr().out


def test_a_worker_that_fails_is_reported_with_its_last_line(tmp_path: Path) -> None:
    client = client_of(Check("there", "x", lambda *_: 0.0), worker="benchmarks.no_such_module")
    (result,) = run_client(client, tmp_path, lambda _: Path(sys.executable))
    assert not result.passed
    assert "No module named benchmarks.no_such_module" in result.reason


def test_arrays_of_other_shapes_and_infinite_ones_differ() -> None:
    assert largest_difference(np.zeros(2), np.zeros(3)) == np.inf
    assert largest_difference(np.zeros(2), np.array([0, np.nan])) == np.inf
    assert largest_difference(np.zeros((1, 2)), np.array([[1.0, 5.0]]), np.array([[1, 0]])) == 1.0
