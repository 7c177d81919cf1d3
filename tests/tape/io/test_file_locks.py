"""Locks of open files, and file systems without them."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from tape.io import file_locks
from tape.io.file_locks import lock_file


def test_a_file_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("ab") as one, path.open("ab") as other:
        assert lock_file(one, path, "nothing")
        with pytest.raises(BlockingIOError):
            lock_file(other, path, "nothing", wait=False)
        one.close()
        assert lock_file(other, path, "nothing", wait=False)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_announced_once_per_consequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(file_locks, "_announced", set())
    for name in ("x", "y"):
        with (tmp_path / name).open("ab") as stream:
            assert not lock_file(stream, tmp_path / name, None)
            assert not lock_file(stream, tmp_path / name, "write nothing else")
    with (tmp_path / "x").open("ab") as stream:
        assert not lock_file(stream, tmp_path / "x", "read nothing else")
    assert caplog.messages == [
        f"{tmp_path / 'x'}: its file system has no locks ({os.strerror(number)}); {consequence}"
        for consequence in ("write nothing else", "read nothing else")
    ]


def test_other_errors_are_raised(tmp_path: Path) -> None:
    with (tmp_path / "x").open("ab") as stream:
        os.close(stream.fileno())
        with pytest.raises(OSError, match="Bad file descriptor"):
            lock_file(stream, tmp_path / "x", "nothing")
        os.dup2(os.open(tmp_path / "x", os.O_RDONLY), stream.fileno())
