"""kill -9 at the worst moments of a save, and at others: the resumed run has bitwise the same losses and weights."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.checkpointing import find_checkpoint, load_full_checkpoint
from pretrain.train.metrics_schema import TIMING_FIELDS
from tests.support import fault_injection
from tests.support.ranks import start_ranks, wait_for

Flags = Callable[..., list[str]]
Records = Callable[..., list[dict[str, Any]]]
OPTIONS = ("--save-interval", 4, "--keep-last", 1, "--eval-interval", 6, "--split", "80,10,10")
MOMENTS = [name for name in vars(fault_injection) if name.startswith("killed_")]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, flags: Flags, pretrain_here: Callable) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    pretrain_here(flags("--save", folder, *OPTIONS, train_iters=14, dropout=0.1))
    return folder


def curve(folder: Path, records: Records) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name not in TIMING_FIELDS}
        for kind in ("train", "evaluation")
        for record in records(folder, kind)
    ]


def assert_the_same(folder: Path, straight: Path, records: Records) -> None:
    assert curve(folder, records) == curve(straight, records)
    one, two = load_full_checkpoint(folder).model, load_full_checkpoint(straight).model
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in straight.iterdir())


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_during_a_save_resumes_exactly(
    tmp_path: Path, straight: Path, flags: Flags, records: Records, pretrain_here: Callable, moment: str
) -> None:
    """The checkpoint of iteration 8 is being written; the one that the pointer names is complete at any moment."""
    command = flags("--save", tmp_path / "run", "--load", tmp_path / "run", *OPTIONS, train_iters=14, dropout=0.1)
    (rank,) = start_ranks(command, tmp_path / "logs", fault=f"tests.support.fault_injection:{moment}")
    assert rank.end(120) == -signal.SIGKILL, rank.text
    left = load_full_checkpoint(tmp_path / "run")
    assert left.iteration == (8 if moment == "killed_among_the_old" else 4)
    pretrain_here(command)
    assert_the_same(tmp_path / "run", straight, records)


def test_a_run_killed_repeatedly_resumes_exactly(
    tmp_path: Path, straight: Path, flags: Flags, records: Records, pretrain_here: Callable
) -> None:
    """Before the first step, between checkpoints, and as soon as one is being written."""
    run = tmp_path / "run"
    command = flags("--save", run, "--load", run, *OPTIONS, train_iters=14, dropout=0.1)

    def trained_three() -> bool:
        # a start without a checkpoint moves the records of the one before aside, so they may be gone for a moment
        with contextlib.suppress(FileNotFoundError):
            return any(record["iteration"] >= 3 for record in records(run))
        return False

    moments: list[Callable[[], bool]] = [
        (run / "metrics.jsonl").exists,
        trained_three,
        lambda: find_checkpoint(run) is not None or any(run.glob(".iter_*.tmp")),
    ]
    for moment in moments:
        (rank,) = start_ranks(command, tmp_path / "logs")
        wait_for(moment, "a moment to kill it", 60, pause=0.001)
        os.kill(rank.pid, signal.SIGKILL)
        assert rank.end() == -signal.SIGKILL
    pretrain_here(command)
    for aside in run.glob("metrics.*.jsonl"):  # of starts that were killed before the first checkpoint
        aside.unlink()
    assert_the_same(run, straight, records)
