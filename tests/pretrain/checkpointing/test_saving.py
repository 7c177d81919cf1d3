"""A checkpoint being written belongs to its writer; the pointer moves to it only if rank 0 sees all of its files."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pretrain.checkpointing import find_checkpoint, load_full_checkpoint, saving
from tape.errors import CheckpointError
from tests.support.ranks import start_ranks

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]


def test_files_that_rank_0_does_not_see_are_not_published(
    tmp_path: Path, flags: Flags, pretrain_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank wrote its file to a disk of its own: here, the file vanishes once it has been described."""
    pretrain_here(flags("--save", tmp_path, "--eval-iters", 0, train_iters=2))
    write_files = saving._write_files

    def vanishing(directory: Path, *arguments: Any) -> dict[str, Any]:
        files = write_files(directory, *arguments)
        next(directory.glob("*.distcp")).unlink()
        return files

    monkeypatch.setattr(saving, "_write_files", vanishing)
    monkeypatch.setattr(saving, "_CACHE_SECONDS", 0.1)
    with pytest.raises(
        CheckpointError, match=r"__0_0\.distcp: rank 0 has written \d+ bytes, and rank 0 does not see it"
    ):
        pretrain_here(
            flags("--save", tmp_path, "--load", tmp_path, "--keep-last", 1, "--override-lr-scheduler", train_iters=4)
        )
    assert find_checkpoint(tmp_path) == tmp_path / "iter_0000002"
    assert load_full_checkpoint(tmp_path).iteration == 2
    assert not list(tmp_path.glob(".iter_*"))


@pytest.mark.parametrize("mode", [(), ("--no-async-save",)], ids=["async", "sync"])
@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.distributed)])
def test_a_checkpoint_being_written_is_no_leftover_for_another_process(
    tmp_path: Path, flags: Flags, world: int, mode: Sequence[str]
) -> None:
    """Rank 1 looks for leftovers in a process of its own."""
    run = tmp_path / "run"
    command = flags("--save", run, "--save-interval", 2, "--eval-iters", 0, *mode, train_iters=4)
    fault = "tests.support.fault_injection:leftovers_removed_during_each_save"
    for rank in start_ranks(command, tmp_path / "logs", world, fault):
        assert rank.end(120) == 0, rank.text
    assert load_full_checkpoint(run).iteration == 4
    assert not list(run.glob(".iter_*"))


@pytest.mark.distributed
def test_what_two_ranks_were_writing_is_removed_after_rank_0_was_killed(tmp_path: Path, flags: Flags) -> None:
    run = tmp_path / "run"
    command = flags(
        "--save", run, "--load", run, "--save-interval", 2, "--eval-iters", 0, "--no-async-save", train_iters=4
    )
    fault = "tests.support.fault_injection:rank_0_killed_in_the_second_save"
    first, second = start_ranks(command, tmp_path / "logs", 2, fault)
    assert first.end(120) == -signal.SIGKILL
    assert second.end(120) != 0
    assert len(list(run.glob(".iter_0000004.*.tmp"))) == 1
    for rank in start_ranks(command, tmp_path / "again", 2):
        assert rank.end(120) == 0, rank.text
    assert load_full_checkpoint(run).iteration == 4
    assert not list(run.glob(".iter_*"))
