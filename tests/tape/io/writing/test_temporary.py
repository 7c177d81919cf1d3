"""Temporary names: what killed processes have left is removed, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tape.io import file_locks
from tape.io.file_locks import lock_file
from tape.io.writing import atomic_directory, atomic_write, remove_leftovers, temporary


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
        remove_leftovers(tmp_path, exclusive=True)
        assert len(list(tmp_path.iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


_WRITE = """
import sys
from tape.io.writing import atomic_directory, atomic_write
with atomic_directory(sys.argv[1] + "/out") as folder, atomic_write(sys.argv[1] + "/file"):
    (folder / "x").touch()
    print("writing", flush=True)
    input()
"""


@contextmanager
def writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing the directory ``out`` and the file ``file``."""
    command = [sys.executable, "-c", _WRITE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        try:
            yield process
        finally:
            process.kill()


def test_what_another_process_writes_is_removed_once_that_is_killed(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        process.kill()
        process.wait()
        assert len(list(tmp_path.iterdir())) == 2
        remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_goes_on_while_others_remove_leftovers(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        remove_leftovers(tmp_path)
        process.communicate("\n")
        assert process.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


@pytest.mark.parametrize("content", [(), ("lock",), ("lock", "out/x"), ("out/x",), ("x",)], ids="+".join)
def test_a_directory_is_removed_whenever_its_writer_was_killed(tmp_path: Path, content: Sequence[str]) -> None:
    """The last one is of an earlier version, which had no file ``lock``."""
    for name in ("", *content):
        path = tmp_path / ".out.abcdefgh.tmp" / name
        path.parent.mkdir(exist_ok=True)
        path.touch() if name else path.mkdir()
    remove_leftovers(tmp_path, "out")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_version_0_1_have_the_number_of_their_process(tmp_path: Path) -> None:
    (tmp_path / ".corpus.4711.tmp").mkdir()
    (tmp_path / ".corpus.4711.tmp" / "bin").touch()
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1  # it is no more than similar to a temporary name
    remove_leftovers(tmp_path, "corpus")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("atomic", [atomic_write, atomic_directory])
def test_one_that_was_removed_before_it_was_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: Callable[[Path], AbstractContextManager[object]]
) -> None:
    seen: list[Path] = []

    def removed_before(stream: IO[Any], path: Path, *arguments: Any, **options: Any) -> bool:
        seen.append(path)
        if len(seen) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(temporary, "lock_file", lock_file)
                remove_leftovers(tmp_path)
        return lock_file(stream, path, *arguments, **options)

    monkeypatch.setattr(temporary, "lock_file", removed_before)
    with atomic(tmp_path / "out"):
        assert len(seen) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_files_open_for_writing_are_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS locks no others for all hosts."""
    modes: list[tuple[bool, int]] = []
    flock = fcntl.flock

    def record(stream: IO[Any], operation: int) -> None:
        access = fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_ACCMODE
        modes.append((stat.S_ISREG(os.fstat(stream.fileno()).st_mode), access))
        flock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", record)
    with atomic_write(tmp_path / "file"), atomic_directory(tmp_path / "folder"):
        remove_leftovers(tmp_path)
    assert len(modes) == 4
    assert {is_file for is_file, _ in modes} == {True}
    assert os.O_RDONLY not in {access for _, access in modes}


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(file_locks, "_announced", set())


@pytest.mark.usefixtures("without_locks")
def test_without_file_locks_nothing_is_removed_with_one_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with atomic_write(tmp_path / "file") as stream, atomic_directory(tmp_path / "folder"):
        stream.write(b"1")
        assert caplog.messages == []
        remove_leftovers(tmp_path)
        remove_leftovers(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"1"
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}/.")
    assert "its file system has no locks (No locks available); temporary files there (.NAME.*.tmp) are kept" in message


@pytest.mark.usefixtures("without_locks")
def test_without_file_locks_the_owner_of_the_run_lock_removes_leftovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".file.abcdefgh.tmp").touch()
    (tmp_path / ".folder.abcdefgh.tmp").mkdir()
    (tmp_path / ".folder.abcdefgh.tmp" / "lock").touch()
    remove_leftovers(tmp_path, exclusive=True)
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == []
