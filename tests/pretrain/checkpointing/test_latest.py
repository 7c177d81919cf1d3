"""Which checkpoint a run resumes from if the pointer is lost, or its checkpoint is missing or damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pretrain.checkpointing import RunDescription, RunState, find_latest, newest_iteration, save_checkpoint
from pretrain.checkpointing.latest import describe_latest
from pretrain.parallel import ControlGroup, ParallelContext, ParallelDims
from tape.errors import CheckpointError
from tape.tokenizers import TAPETokenizer

ALONE = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
DESCRIPTION = RunDescription({}, {}, TAPETokenizer().tokens, TAPETokenizer().fingerprint)
POINTER = "latest_checkpointed_iteration.txt"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved")
    for iteration in (10, 20, 30):
        save_checkpoint(root, torch.nn.Linear(2, 2), {}, RunState(iteration), DESCRIPTION, ALONE)
    return root


@pytest.fixture
def root(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def damage(checkpoint: Path) -> None:
    """Change one bit, so that only the SHA-256 differs."""
    (shard,) = checkpoint.glob("*.distcp")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def test_the_pointers_checkpoint_is_found_without_notice(root: Path) -> None:
    (root / POINTER).write_text("20\n")
    latest = find_latest(root, ControlGroup())
    assert latest.path == root / "iter_0000020"
    assert latest.notices == ()


def test_without_pointer_the_newest_is_found(root: Path) -> None:
    (root / POINTER).unlink()
    latest = find_latest(root, ControlGroup())
    assert latest.path == root / "iter_0000030"
    (notice,) = latest.notices
    assert f"{POINTER}: missing. Resuming from {root / 'iter_0000030'}" in notice


@pytest.mark.parametrize("content", ["40\n", "", "release\n", "6\u00b2", "1" * 5000])
def test_a_pointer_to_a_missing_checkpoint_is_replaced_by_the_newest(root: Path, content: str) -> None:
    (root / POINTER).write_text(content)
    latest = find_latest(root, ControlGroup())
    assert latest.path == root / "iter_0000030"
    assert len(latest.notices) == 1


def test_damaged_checkpoints_are_passed_over_and_named(root: Path) -> None:
    damage(root / "iter_0000030")
    (root / "iter_0000020" / "metadata.json").unlink()
    latest = find_latest(root, ControlGroup())
    assert latest.path == root / "iter_0000010"
    (notice,) = latest.notices
    assert "iter_0000030/__0_0.distcp: damaged" in notice
    assert "iter_0000020/metadata.json" in notice


def test_if_all_are_damaged_nothing_starts(root: Path) -> None:
    for checkpoint in root.glob("iter_*"):
        damage(checkpoint)
    with pytest.raises(CheckpointError, match=r"no complete checkpoint to resume from.*iter_0000030.*iter_0000010"):
        find_latest(root, ControlGroup())


def test_a_pointer_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / POINTER).write_text("40\n")
    with pytest.raises(CheckpointError, match="iter_0000040: no checkpoint there"):
        find_latest(tmp_path, ControlGroup())


def test_a_named_iteration_has_no_substitute(root: Path) -> None:
    damage(root / "iter_0000030")
    assert find_latest(root / "iter_0000020", ControlGroup()).path == root / "iter_0000020"
    with pytest.raises(CheckpointError, match=r"iter_0000030/__0_0\.distcp: damaged"):
        find_latest(root / "iter_0000030", ControlGroup())


def test_ranks_with_other_checkpoints_and_no_pointer_are_described_differently(root: Path) -> None:
    (root / POINTER).unlink()
    assert describe_latest(root) == f"no {POINTER}, but iter_0000030, iter_0000020, iter_0000010"
    shutil.rmtree(root / "iter_0000030")
    assert describe_latest(root) == f"no {POINTER}, but iter_0000020, iter_0000010"


def test_the_newest_iteration(root: Path, tmp_path: Path) -> None:
    (root / "iter_99").mkdir()
    assert newest_iteration(root) == 30
    assert newest_iteration(tmp_path / "absent") is None


def test_a_later_save_repairs_the_pointer(root: Path) -> None:
    (root / POINTER).unlink()
    save_checkpoint(root, torch.nn.Linear(2, 2), {}, replace(RunState(), iteration=31), DESCRIPTION, ALONE)
    assert find_latest(root, ControlGroup()) == find_latest(root / "iter_0000031", ControlGroup())
