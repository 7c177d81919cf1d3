"""The CRCs in zip files of torch.save."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from tape.errors import CheckpointError
from tape.io.zip_files import is_zip, verify_crcs


def archive(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data/0", b"numbers" * 100)
        file.writestr("data/1", b"others" * 100)
    return path.read_bytes()


def test_whole_zip_files_pass(tmp_path: Path) -> None:
    archive(tmp_path / "x.bin")
    assert is_zip(tmp_path / "x.bin")
    verify_crcs(tmp_path / "x.bin")


def test_a_flipped_bit_in_a_record_is_named(tmp_path: Path) -> None:
    content = archive(tmp_path / "x.bin")
    place = content.index(b"othersothers")
    (tmp_path / "x.bin").write_bytes(content[:place] + b"O" + content[place + 1 :])
    with pytest.raises(CheckpointError, match=r"x\.bin: damaged: record 'data/1' does not pass its check"):
        verify_crcs(tmp_path / "x.bin")


def test_a_truncated_zip_file_is_reported_as_such(tmp_path: Path) -> None:
    content = archive(tmp_path / "x.bin")
    (tmp_path / "x.bin").write_bytes(content[: len(content) // 2])
    assert is_zip(tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match=r"x\.bin: truncated or damaged: the directory of its records"):
        verify_crcs(tmp_path / "x.bin")


def test_damage_anywhere_raises_nothing_but_checkpoint_errors(tmp_path: Path) -> None:
    content = archive(tmp_path / "whole.bin")
    for place in range(0, len(content), 3):
        path = tmp_path / "x.bin"
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with suppress(CheckpointError):
            verify_crcs(path)


def test_compressed_records_are_refused_before_they_are_decompressed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("data/0", bytes(1 << 20))
    with pytest.raises(CheckpointError, match=r"x\.bin: damaged: record 'data/0' .*compressed"):
        verify_crcs(tmp_path / "x.bin")


def test_records_that_overlap_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as stream:
        stream.writestr("data/0", bytes(1 << 20))
        for _ in range(3):  # further entries of the directory for the same bytes
            stream.filelist.append(stream.filelist[0])
    with pytest.raises(CheckpointError, match=r"x\.bin: damaged: record 'data/0' .*overlap"):
        verify_crcs(tmp_path / "x.bin")
