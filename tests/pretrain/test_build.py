"""One run at a time writes a directory of checkpoints."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from pretrain.checkpointing import find_checkpoint
from tape.runtime.run_lock import lock_in
from tests.support.ranks import start_ranks, wait_for

Flags = Callable[..., list[str]]


def test_a_run_that_is_started_twice_is_refused_the_second_time(tmp_path: Path, flags: Flags) -> None:
    """The first one, stopped in the meantime, goes on undisturbed."""
    save = tmp_path / "run"
    command = flags("--save", save, "--load", save, "--save-interval", 5, train_iters=10)
    (first,) = start_ranks(command, tmp_path / "first")
    wait_for(lock_in(save).exists, "the lock of the first run")
    os.kill(first.pid, signal.SIGSTOP)
    (second,) = start_ranks(command, tmp_path / "second")
    assert second.end() == 1
    assert f"error: {save}: in use by process {first.pid} on" in second.text
    assert "choose another --save" in second.text
    os.kill(first.pid, signal.SIGCONT)
    assert first.end() == 0, first.text
    assert find_checkpoint(save) == save / "iter_0000010"
    assert not lock_in(save).exists()


def test_of_two_resumes_at_once_one_is_refused(tmp_path: Path, flags: Flags) -> None:
    save = tmp_path / "run"
    (first,) = start_ranks(flags("--save", save, "--save-interval", 5, train_iters=5), tmp_path / "first")
    assert first.end() == 0, first.text
    resume = flags("--save", save, "--load", save, "--override-lr-scheduler", train_iters=100_000)
    ranks = [*start_ranks(resume, tmp_path / "second"), *start_ranks(resume, tmp_path / "third")]
    wait_for(lambda: any(not rank.process.is_alive() for rank in ranks), "the end of one of them")
    refused, running = sorted(ranks, key=lambda rank: rank.process.is_alive())
    assert refused.end() == 1, refused.text
    assert f"error: {save}: in use by process {running.pid} on" in refused.text
    wait_for(lambda: "resuming from iteration 5" in running.text, "the other one trains")
    os.kill(running.pid, signal.SIGTERM)
    assert running.end() == 0, running.text


def test_a_run_after_a_killed_one_takes_over_its_lock(tmp_path: Path, flags: Flags) -> None:
    save = tmp_path / "run"
    command = flags("--save", save, "--load", save, "--save-interval", 5, train_iters=10)
    (first,) = start_ranks(command, tmp_path / "first")
    wait_for(lock_in(save).exists, "the lock of the first run")
    os.kill(first.pid, signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    (second,) = start_ranks(command, tmp_path / "second")
    assert second.end() == 0, second.text
    assert f"process {first.pid} on" in second.text
    assert "ended without removing its lock; taken over" in second.text
