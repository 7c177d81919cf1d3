"""How far runs have come, by the records of the commands; real runs are in test_quickstart.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from proteinlm.workflow.run_progress import missing_epochs, missing_iterations, resume_finetuning, resume_pretraining


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


@pytest.mark.parametrize(("losses", "is_finished"), [((3, 1, 2, 2), True), ((3, 1, 2), False), ((1, 2, 0.5), False)])
def test_a_run_that_stopped_early_has_finished(tmp_path: Path, losses: tuple[float, ...], is_finished: bool) -> None:
    lines = [f'{{"epoch": {epoch}, "valid": {{"loss": {loss}}}}}\n' for epoch, loss in enumerate(losses)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    assert (missing_epochs(tmp_path, 9, patience=2) == "") == is_finished
    assert missing_epochs(tmp_path, 9) == f"{len(losses)} of 9 epochs"


def test_early_stopping_by_another_metric(tmp_path: Path) -> None:
    values = [(3.0, 0.1), (2.0, 0.3), (1.0, 0.2), (0.5, 0.2)]  # the loss still falls
    lines = [f'{{"epoch": {n}, "valid": {{"loss": {a}, "accuracy": {b}}}}}\n' for n, (a, b) in enumerate(values)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    assert missing_epochs(tmp_path, 9, 2, "accuracy") == ""
    assert missing_epochs(tmp_path, 9, 2, "loss") == "4 of 9 epochs"


def test_only_runs_with_a_saved_state_are_resumed(tmp_path: Path) -> None:
    assert resume_pretraining(tmp_path) is None
    assert resume_finetuning(tmp_path) is None
    folder = tmp_path / "iter_0000012"
    folder.mkdir()
    (folder / "metadata.json").touch()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("12")
    (tmp_path / "latest.json").touch()
    assert resume_pretraining(tmp_path) == ("--load", str(tmp_path))
    assert resume_finetuning(tmp_path) == ("--from_pretrained", str(tmp_path), "--resume_from_checkpoint")
