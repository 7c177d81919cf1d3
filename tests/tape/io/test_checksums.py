"""SHA256SUMS of a directory."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from tape.errors import CheckpointError
from tape.io.checksums import (
    HashingStream,
    VerifiedSums,
    read_sums,
    renew_sum,
    sha256_of,
    verify_sums,
    write_sums,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of two files with their sums."""
    for name in ("a.bin", "b c.json"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    write_sums(tmp_path, {name: sha256_of(tmp_path / name) for name in ("a.bin", "b c.json")})
    return tmp_path


def test_files_that_are_as_written_pass(folder: Path) -> None:
    assert verify_sums(folder, ["a.bin", "b c.json", "absent"]) == VerifiedSums(frozenset({"a.bin", "b c.json"}))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_reads_and_writes_the_same_file(folder: Path) -> None:
    assert subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder, check=False).returncode == 0
    sums = read_sums(folder)
    subprocess.run("sha256sum * > SHA256SUMS", shell=True, cwd=folder, check=True)
    assert read_sums(folder) == sums


def test_a_changed_file_is_named_with_both_sums_and_the_way_on(folder: Path) -> None:
    expected = sha256_of(folder / "a.bin")
    (folder / "a.bin").write_bytes(b"other")
    with pytest.raises(CheckpointError) as caught:
        verify_sums(folder, ["b c.json", "a.bin"])
    message = str(caught.value)
    assert message.startswith(f"{folder / 'a.bin'}: damaged, or changed")
    assert expected in message
    assert hashlib.sha256(b"other").hexdigest() in message
    assert "--no-verify" in message


def test_the_command_in_the_message_renews_the_sums(folder: Path) -> None:
    (folder / "b c.json").unlink()
    (folder / "a.bin").write_bytes(b"other")
    with pytest.raises(CheckpointError) as caught:
        verify_sums(folder, ["a.bin"])
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    assert verify_sums(folder, ["a.bin"]).verified == {"a.bin"}


def test_a_listed_file_that_is_gone_is_an_error(folder: Path) -> None:
    (folder / "a.bin").unlink()
    with pytest.raises(CheckpointError, match=r"a\.bin: missing, but SHA256SUMS beside it lists it"):
        verify_sums(folder, ["a.bin"])


def test_files_that_are_not_listed_are_returned(folder: Path) -> None:
    (folder / "new.bin").touch()
    assert verify_sums(folder, ["a.bin", "new.bin"]) == VerifiedSums(frozenset({"a.bin"}), ("new.bin",))


def test_a_directory_without_sums_passes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").touch()
    assert verify_sums(tmp_path, ["a.bin"]) == VerifiedSums()


@pytest.mark.parametrize("content", [b"<html>", b"\xff\xfe\x00", b"0" * 63 + b"  a", b"\n"])
def test_a_file_of_another_format_is_named_with_its_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA256SUMS, line 1: .* is not a checksum"):
        read_sums(tmp_path)


def test_sums_larger_than_any_directory_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(CheckpointError, match="larger than"):
        read_sums(tmp_path)


def test_a_change_on_purpose_renews_the_sum(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"other")
    renew_sum(folder / "a.bin")
    assert verify_sums(folder, ["a.bin", "b c.json"]).verified == {"a.bin", "b c.json"}


def test_a_stream_is_hashed_while_it_is_written() -> None:
    target = io.BytesIO()
    stream = HashingStream(target)
    for block in (b"one", memoryview(b"two"), bytearray(b"three")):
        stream.write(block)
    assert target.getvalue() == b"onetwothree"
    assert stream.hexdigest() == hashlib.sha256(b"onetwothree").hexdigest()
