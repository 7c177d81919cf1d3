"""Retention keeps the pointer's checkpoint and the newest before it, and deletes only complete checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pretrain.checkpointing import find_checkpoint, find_readable, newest_iteration, path_of_iteration
from pretrain.checkpointing.retention import Retention, remove_old_checkpoints
from tape.errors import CheckpointError
from tape.io.writing import remove_leftovers


def checkpoint(root: Path, number: int, **changes: object) -> Path:
    path = root / f"iter_{number:07d}"
    path.mkdir(parents=True)
    metadata = {"format": "proteinlm-sharded", "version": 1, "iteration": number, "model_config": {}}
    metadata |= {"arguments": {}, "vocabulary": [], "vocabulary_fingerprint": ""}
    metadata |= {"files": {".metadata": {"bytes": 0, "sha256": ""}}, **changes}
    (path / "metadata.json").write_text(json.dumps(metadata))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for iteration in (10, 20, 30, 40):
        checkpoint(tmp_path, iteration)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("30\n")
    return tmp_path


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_the_pointers_checkpoint_and_the_newest_before_it_are_kept(root: Path) -> None:
    assert [path.name for path in remove_old_checkpoints(root, Retention(2))] == ["iter_0000010"]
    assert names(root) == ["iter_0000020", "iter_0000030", "iter_0000040"]  # 40: the pointer was set back by hand
    remove_old_checkpoints(root, Retention(1))
    assert names(root) == ["iter_0000030", "iter_0000040"]
    assert remove_old_checkpoints(root, Retention(1)) == []


def test_checkpoints_of_an_earlier_run_are_deleted_first(tmp_path: Path) -> None:
    """A run starts at 0, or resumes from 4, where an earlier run has saved 4, 8 and 10."""
    for iteration in (4, 8, 10, 12):
        checkpoint(tmp_path, iteration)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("12\n")
    remove_old_checkpoints(tmp_path, Retention(3, start=0, written=frozenset({4, 8})))
    assert names(tmp_path) == ["iter_0000004", "iter_0000008", "iter_0000012"]
    checkpoint(tmp_path, 10)
    remove_old_checkpoints(tmp_path, Retention(2, start=4, written=frozenset({8})))
    assert names(tmp_path) == ["iter_0000008", "iter_0000012"]


def test_checkpoints_of_ten_million_iterations_and_more_are_ordered_by_number(tmp_path: Path) -> None:
    """Their names have more digits and do not sort as their numbers do; nor do names of half-written directories."""
    numbers = (9_999_998, 9_999_999, 10_000_000, 10_000_001, 100_000_000)
    for number in numbers:
        checkpoint(tmp_path, number)
    checkpoint(tmp_path, 5).rename(tmp_path / "iter_00000005")  # not the name of iteration 5
    pointer = tmp_path / "latest_checkpointed_iteration.txt"
    pointer.write_text("100000000\n")
    assert [path.name for path in remove_old_checkpoints(tmp_path, Retention(3))] == ["iter_9999998", "iter_9999999"]
    pointer.write_text("10000001\n")  # set back by hand
    assert [path.name for path in remove_old_checkpoints(tmp_path, Retention(1))] == ["iter_10000000"]
    left = {"iter_00000005", "iter_10000001", "iter_100000000"}
    assert set(names(tmp_path)) == left
    assert find_checkpoint(tmp_path) == tmp_path / "iter_10000001"
    (tmp_path / ".iter_10000002.abcdefgh.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert set(names(tmp_path)) == left


def test_other_directories_are_not_deleted(root: Path) -> None:
    checkpoint(root, 1, format="other")
    checkpoint(root, 2, iteration=3)
    (root / "iter_0000004").mkdir()  # of Megatron, or without metadata
    (root / "iter_5").mkdir()
    (root / "iter_0000006").symlink_to(root / "iter_0000010")
    (root / "notes").mkdir()
    remove_old_checkpoints(root, Retention(1))
    left = {"iter_0000001", "iter_0000002", "iter_0000004", "iter_5", "notes", "iter_0000030", "iter_0000040"}
    assert left <= set(names(root))
    assert "iter_0000010" not in names(root)


def test_leftovers_of_a_killed_process_are_removed(root: Path) -> None:
    (root / ".iter_0000050.abcdefgh.tmp").mkdir()
    (root / ".iter_0000020.abcdefgh.tmp").mkdir()
    remove_leftovers(root)
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []


def test_the_newest_iteration_may_have_been_moved_aside(root: Path) -> None:
    aside = root / ".iter_0000040.abcdefgh.old"
    aside.mkdir()
    os.replace(root / "iter_0000040", aside / "iter_0000040")
    assert newest_iteration(root) == 40


def test_one_checkpoint_behind_a_link_is_no_directory_of_checkpoints(root: Path) -> None:
    (root / "best").symlink_to(root / "iter_0000030")
    with pytest.raises(CheckpointError, match=f"best: one checkpoint; --ckpt-step chooses .*: give {root}, or leave"):
        path_of_iteration(root / "best", 30)


def test_a_checkpoint_that_was_moved_aside_is_found_and_moved_back(root: Path) -> None:
    """The process was killed between the two renames that replace an iteration."""
    aside = root / ".iter_0000030.abcdefgh.old"
    aside.mkdir()
    os.replace(root / "iter_0000030", aside / "iter_0000030")
    assert find_checkpoint(root) == path_of_iteration(root, 30) == aside / "iter_0000030"
    (root / "iter_0000040" / "metadata.json").unlink()
    (root / "latest_checkpointed_iteration.txt").unlink()
    assert find_readable(root) == aside / "iter_0000030"
    remove_leftovers(root)
    assert find_readable(root) == root / "iter_0000030"
    assert not aside.exists()
