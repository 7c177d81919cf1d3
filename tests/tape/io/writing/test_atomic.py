"""Atomic writing of files and directories."""

from __future__ import annotations

import errno
import json
import os

import pytest

from tape.errors import ConfigError, OutputError
from tape.io.writing import atomic, atomic_directory, atomic_write, link_or_copy, remove_leftovers, write_json


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


def test_the_only_copy_is_kept_if_it_can_not_be_moved_back(tmp_path, without_exchange, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    replace = os.replace

    def fail_to_give_the_name(source, destination):
        if str(destination) == str(target):
            raise OSError(errno.EIO, "Input/output error")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail_to_give_the_name)
    with pytest.raises(OutputError, match=r"model: .*not replaced .*kept as .*\.old/model"):
        with atomic_directory(target, overwrite=True) as temporary:
            (temporary / "weights").write_text("new")
    monkeypatch.undo()
    remove_leftovers(tmp_path)
    assert (target / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


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
