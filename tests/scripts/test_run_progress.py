"""How far runs have come, by the records of the commands; real runs are in test_quickstart.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.run_progress import missing_epochs, missing_iterations


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [("20", ""), ("30\n", ""), ("12", "iteration 12 of 20"), (None, "iteration 0 of 20"), ("x", "iteration 0 of 20")],
)
def test_missing_iterations(tmp_path: Path, pointer: str | None, expected: str) -> None:
    if pointer is not None:
        (tmp_path / "latest_checkpointed_iteration.txt").write_text(pointer)
        folder = tmp_path / f"iter_{int(pointer) if pointer.strip().isdigit() else 12:07d}"
        folder.mkdir()
        (folder / "metadata.json").touch()
    found = missing_iterations(tmp_path, 20)
    assert found.endswith(expected)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ('{"epoch": 0}\n{"epoch": 1}\n', ""),
        ('{"epoch": 0}\n', "1 of 2 epochs"),
        ("", "0 of 2 epochs"),
        (None, "0 of 2 epochs"),
        ('{"epoch": 0}\n{"epoch"', "0 of 2 epochs"),
    ],
)
def test_missing_epochs(tmp_path: Path, history: str | None, expected: str) -> None:
    if history is not None:
        (tmp_path / "metrics.jsonl").write_text(history)
    assert missing_epochs(tmp_path, 2) == expected
