"""Atomic writing of files and directories."""

from __future__ import annotations

import errno
import fcntl
import json
import os

import pytest

from tape.errors import ConfigError
from tape.io import atomic
from tape.io.atomic import atomic_directory, atomic_write, link_or_copy, remove_leftovers, write_json


def test_a_failed_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(TypeError), atomic_write(target, "w") as stream:
        stream.write("half") and stream.write(None)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_complete_write_replaces_the_file(tmp_path):
    target = tmp_path / "folder" / "file.bin"
    with atomic_write(target) as stream:
        stream.write(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    write_json(target, {"b": 1, "a": 2})
    assert target.read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'
    assert json.loads(target.read_text()) == {"a": 2, "b": 1}


def test_directories_are_complete_or_absent(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(FileNotFoundError), atomic_directory(target) as folder:
        (folder / "x").write_text("1") and (folder / "absent" / "y").write_text("2")
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(target) as folder:
        (folder / "x").write_text("1")
    with pytest.raises(ConfigError, match="exists already"), atomic_directory(target):
        pass
    with atomic_directory(target, overwrite=True) as folder:
        (folder / "y").write_text("2")
    assert [path.name for path in target.iterdir()] == ["y"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture
def without_exchange(monkeypatch):
    """A file system that can't exchange two names, such as NFS."""
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


def test_a_replaced_directory_never_loses_its_name(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "x").write_text("old")
    seen = []
    delete = atomic.shutil.rmtree
    monkeypatch.setattr(
        atomic.shutil, "rmtree", lambda *a, **o: (seen.append((target / "x").read_text()), delete(*a, **o))
    )
    monkeypatch.setattr(atomic.os, "replace", lambda *names: pytest.fail("two renames"))
    with atomic_directory(target, overwrite=True) as folder:
        (folder / "x").write_text("new")
    assert set(seen) == {"new"}
    assert list(tmp_path.iterdir()) == [target]


def test_without_exchange_a_directory_is_replaced_in_two_steps(tmp_path, without_exchange):
    target = tmp_path / "model"
    for text in ("old", "new"):
        with atomic_directory(target, overwrite=True) as folder:
            (folder / "x").write_text(text)
    assert (target / "x").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_that_was_moved_away_gets_its_name_back(tmp_path):
    aside = tmp_path / ".model.abcdefgh.old"
    (aside / "model").mkdir(parents=True)
    (aside / "model" / "x").write_text("old")
    remove_leftovers(tmp_path, "model")
    assert (tmp_path / "model" / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
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


def test_what_a_running_process_writes_is_not_removed(tmp_path):
    with atomic_write(tmp_path / "file") as stream, atomic_directory(tmp_path / "folder") as folder:
        stream.write(b"1")
        (folder / "x").touch()
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_without_file_locks_nothing_is_removed(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / ".file.abcdefgh.tmp").touch()
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_write(tmp_path / "file") as stream:
        stream.write(b"1")
    assert (tmp_path / "file").read_bytes() == b"1"


def test_a_link_replaces_an_earlier_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")

    def unsupported(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", unsupported)
    link_or_copy(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
