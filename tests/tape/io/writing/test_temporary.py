"""Temporary names: what killed processes have left is removed, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tape.io.writing import atomic_directory, atomic_write, remove_leftovers


def test_a_directory_that_was_moved_away_gets_its_name_back(tmp_path: Path) -> None:
    aside = tmp_path / ".model.abcdefgh.old"
    (aside / "model").mkdir(parents=True)
    (aside / "model" / "x").write_text("old")
    remove_leftovers(tmp_path, "model")
    assert (tmp_path / "model" / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".out.abcdefgh.tmp").mkdir()
    (tmp_path / ".out.abcdefg1.tmp").touch()
    others = {".out.tmp", ".other.abcdefgh.tmp", "out.abcdefgh.tmp", ".out.abcdefgh.bak", "out"}
    for name in others:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "out")
    assert {path.name for path in tmp_path.iterdir()} == others
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == others - {".other.abcdefgh.tmp"}
    remove_leftovers(tmp_path / "missing")


def test_what_a_running_process_writes_is_not_removed(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as stream, atomic_directory(tmp_path / "folder") as folder:
        stream.write(b"1")
        (folder / "x").touch()
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_without_file_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / ".file.abcdefgh.tmp").touch()
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_write(tmp_path / "file") as stream:
        stream.write(b"1")
    assert (tmp_path / "file").read_bytes() == b"1"


def test_a_killed_writer_leaves_a_file_that_the_next_one_removes(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom tape.io.writing import atomic_directory\n"
        "with atomic_directory(sys.argv[1]) as folder:\n    (folder / 'x').touch()\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "out")], check=False).returncode == -9
    assert [path.name for path in (next(tmp_path.iterdir())).iterdir()] == ["x"]
    with atomic_directory(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
