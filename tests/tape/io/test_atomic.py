"""Atomic writing of files and directories."""

from __future__ import annotations

import json

import pytest

from tape.errors import ConfigError
from tape.io.atomic import atomic_directory, atomic_write, write_json


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
