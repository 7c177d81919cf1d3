"""Ranks that see different things are named, with what each of them sees. The ranks are threads here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tape.errors import ConfigError
from tape.runtime import rank_consistency
from tape.runtime.rank_consistency import Gather, Observation, check_observations, check_shared_directory


def on_ranks(action: Callable[[int, Gather], None], world: int) -> list[str]:
    """Run `action(rank, gather)` on all ranks; the error of each, empty for none."""
    barrier, values = threading.Barrier(world), [None] * world

    def run(rank: int) -> str:
        def gather(value: Any) -> list[Any]:
            values[rank] = value
            barrier.wait(10)
            gathered = list(values)
            barrier.wait(10)
            return gathered

        try:
            action(rank, gather)
        except ConfigError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, range(world)))


def errors_of(seen: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(rank_consistency.socket, "gethostname", lambda: "node1")
    return on_ranks(
        lambda rank, gather: check_observations([Observation("--load X", seen[rank], "Share X")], gather), len(seen)
    )


def test_ranks_that_see_the_same_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors_of(["iter_2", "iter_2"], monkeypatch) == ["", ""]


def test_every_rank_raises_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "--load X: the ranks see different things: rank 0 on node1: iter_2; rank 1 on node1: iter_3. Share X"
    assert errors_of(["iter_2", "iter_3"], monkeypatch) == [expected] * 2


@pytest.mark.parametrize(
    ("seen", "sights"),
    [
        ("aaba", "ranks 0, 1, 3 on node1: a; rank 2 on node1: b"),
        ("aabb", "ranks 0-1 on node1: a; ranks 2-3 on node1: b"),
    ],
)
def test_ranks_with_the_same_sight_are_listed_together(seen: str, sights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"things: {sights}. " in errors_of(list(seen), monkeypatch)[0]


def test_what_only_one_rank_observes_is_a_difference() -> None:
    def check(rank: int, gather: Gather) -> None:
        check_observations([Observation(f"corpus {i}", "x", "Share it") for i in range(2 - rank)], gather)

    assert "corpus 1: the ranks see different things: rank 0" in on_ranks(check, 2)[0]


def check_directories(directories: list[Path]) -> list[str]:
    return on_ranks(
        lambda rank, gather: check_shared_directory("--save", directories[rank], rank, gather), len(directories)
    )


def test_a_shared_directory_is_left_as_it_was(tmp_path: Path) -> None:
    assert check_directories([tmp_path] * 3) == [""] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_consistency, "_CACHE_SECONDS", 0.1)


@pytest.mark.usefixtures("quick")
def test_directories_of_the_same_name_on_different_disks_are_found(tmp_path: Path) -> None:
    disks = [tmp_path / "a", tmp_path / "b"]
    for disk in disks:
        disk.mkdir()
    errors = check_directories([disks[0], disks[0], disks[1]])
    assert "rank 0 on" in errors[0]
    assert "does not see the file that rank 2 on" in errors[0]
    assert errors[0].endswith("--save must be on a file system that all hosts share")
    assert all(list(disk.iterdir()) == [] for disk in disks)


@pytest.mark.usefixtures("quick")
def test_a_directory_that_a_rank_does_not_have_is_found(tmp_path: Path) -> None:
    errors = check_directories([tmp_path, tmp_path / "gone"])
    assert "rank 1 on" in errors[1]
    assert "can't write there (No such file or directory)" in errors[1]


def test_a_file_that_appears_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS."""
    attempts = iter(range(100))
    can_open = rank_consistency._can_open
    monkeypatch.setattr(rank_consistency, "_can_open", lambda path: next(attempts) > 3 and can_open(path))
    assert check_directories([tmp_path] * 2) == ["", ""]
