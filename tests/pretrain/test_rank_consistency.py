"""Two ranks that see different disks: one error that names both, before anything is trained or written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.ranks import start_ranks

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]

pytestmark = pytest.mark.distributed


def refused(flags: Sequence[str], folder: Path, flags_of_ranks: list[list[object]]) -> str:
    """The one error that a run prints on which the ranks don't agree."""
    ranks = start_ranks(flags, folder, world=2, flags_of_ranks=flags_of_ranks)
    codes = [rank.end(120) for rank in ranks]
    shown = "\n".join(rank.text for rank in ranks)
    assert codes == [1, 1], shown
    assert "Traceback" not in shown, shown
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, shown
    return errors[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, flags: Flags, pretrain_here: Run) -> Path:
    """Checkpoints of iterations 2 and 3."""
    folder = tmp_path_factory.mktemp("saved")
    pretrain_here(flags("--save", folder, "--save-interval", 2, "--eval-iters", 0, train_iters=3))
    return folder


def test_another_corpus_on_one_rank(tmp_path: Path, flags: Flags, corpus_prefix: Path, second_prefix: Path) -> None:
    save = tmp_path / "save"
    own: list[list[object]] = [["--data-path", corpus_prefix], ["--data-path", second_prefix]]
    error = refused(flags("--save", save), tmp_path / "logs", own)
    assert f"--data-path {corpus_prefix}: the ranks see different things: rank 0 on" in error
    assert "rank 1 on" in error
    assert "file system that all hosts share" in error
    assert not save.exists()


def test_a_corpus_that_one_rank_does_not_have(tmp_path: Path, flags: Flags, corpus_prefix: Path) -> None:
    own: list[list[object]] = [["--data-path", corpus_prefix], ["--data-path", tmp_path / "gone"]]
    assert ".bin missing, .idx missing" in refused(flags(), tmp_path / "logs", own)


@pytest.mark.parametrize("absent", [False, True], ids=["another", "none"])
def test_another_checkpoint_on_one_rank(absent: bool, tmp_path: Path, flags: Flags, saved: Path) -> None:
    other = tmp_path / "other"
    if absent:
        other.mkdir()
    else:
        shutil.copytree(saved, other)
        (other / "latest_checkpointed_iteration.txt").write_text("2\n", encoding="utf-8")
    error = refused(flags(train_iters=3), tmp_path / "logs", [["--load", saved], ["--load", other]])
    assert f"--load {saved}: the ranks see different things: rank 0 on" in error
    assert ": iter_0000003 (metadata " in error
    assert ("no checkpoint" if absent else ": iter_0000002 (metadata ") in error
    assert "--load must be on a file system that all hosts share" in error


def test_disks_of_their_own_to_save_to(tmp_path: Path, flags: Flags) -> None:
    (tmp_path / "b").mkdir()
    error = refused(flags(), tmp_path / "logs", [["--save", tmp_path / "a"], ["--save", tmp_path / "b"]])
    assert f"--save {tmp_path}" in error
    assert "does not see the file that rank" in error
    assert error.endswith("--save must be on a file system that all hosts share")
    assert not (tmp_path / "a").exists()
    assert list((tmp_path / "b").iterdir()) == []


def test_other_options_on_one_rank(tmp_path: Path, flags: Flags) -> None:
    error = refused(flags(), tmp_path / "logs", [["--seed", 1], ["--seed", 2]])
    assert "--seed: the ranks see different things: rank 0 on" in error
    assert error.endswith("Start all ranks with the same options")
