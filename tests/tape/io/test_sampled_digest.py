"""Digests of samples of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.io.sampled_digest import describe_file, sampled_digest

LARGE = bytes(range(256)) * 8192  # 2 MiB


def test_the_digest_depends_on_content_and_not_on_the_name(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (sampled_digest(tmp_path / name) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("position", [0, len(LARGE) - 1])
def test_the_ends_of_a_large_file_are_read(position: int, tmp_path: Path) -> None:
    changed = bytearray(LARGE)
    changed[position] ^= 1
    (tmp_path / "a").write_bytes(LARGE)
    (tmp_path / "b").write_bytes(changed)
    assert sampled_digest(tmp_path / "a") != sampled_digest(tmp_path / "b")


def test_the_size_of_a_large_file_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 21))
    (tmp_path / "b").write_bytes(bytes((1 << 21) + 1))
    assert sampled_digest(tmp_path / "a") != sampled_digest(tmp_path / "b")


def test_an_absent_or_unreadable_file_is_described(tmp_path: Path) -> None:
    assert describe_file(tmp_path / "gone") == "missing"
    assert describe_file(tmp_path) == "Is a directory"
    (tmp_path / "empty").touch()
    assert describe_file(tmp_path / "empty").startswith("0 bytes (digest ")
