"""The pointer moves to a checkpoint only if rank 0 sees all of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain.checkpointing import find_checkpoint, load_full_checkpoint, saving
from tape.errors import CheckpointError

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
