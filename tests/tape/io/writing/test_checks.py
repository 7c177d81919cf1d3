"""Checks of output places before the work."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from tape.errors import ConfigError
from tape.io.writing import check_is_no_input, check_output_directory, check_output_file, check_replaceable
from tests.support.small_disk import mounted_tmpfs


def test_a_new_place_can_be_written_and_nothing_is_left_there(tmp_path: Path) -> None:
    check_output_directory(tmp_path / "new" / "deep", "--out")
    check_output_file(tmp_path / "new" / "x.csv", "--out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--out .*file/x/y: .*file is a file; give the name of a directory"):
        check_output_directory(tmp_path / "file" / "x" / "y", "--out")
    with pytest.raises(ConfigError, match=r"--out .*file/x: .*file is a file"):
        check_output_file(tmp_path / "file" / "x", "--out")
    with pytest.raises(ConfigError, match="is a directory; give the name of a file"):
        check_output_file(tmp_path, "--out")
    with pytest.raises(ConfigError, match="NUL character"):
        check_output_directory(tmp_path / "a\0b", "--out")


def test_an_input_is_not_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "my.csv", tmp_path / "other.csv"
    check_is_no_input(file, [file], "--out")  # neither exists
    file.touch()
    link.symlink_to(file)
    for name in (file, link, tmp_path / "x" / ".." / "my.csv"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="is also the input, which would be replaced; choose another name"):
            check_is_no_input(name, ["MKV", "", "-", "M" * 9000, str(file)], "--out")
    check_is_no_input(tmp_path / "new.csv", [file, tmp_path], "--out")
    check_is_no_input(Path("/dev/null"), ["/dev/null"], "--out")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_place_that_cannot_be_written_is_refused_with_the_reason(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", fails)
    with pytest.raises(ConfigError, match=rf"--out .*new: can't be written \({os.strerror(number)}\); choose another"):
        check_output_directory(tmp_path / "new", "--out")


def test_a_read_only_disk_is_refused() -> None:
    with mounted_tmpfs("ro") as disk:
        with pytest.raises(ConfigError, match="Read-only file system"):
            check_output_file(disk / "x.csv", "output file")


def test_a_full_disk_is_refused_although_empty_files_can_be_created() -> None:
    with mounted_tmpfs("size=64k") as disk:
        (disk / "full").write_bytes(bytes(64 << 10))
        with pytest.raises(ConfigError, match="No space left on device"):
            check_output_directory(disk, "--out")


def test_only_a_directory_of_own_files_is_replaceable(tmp_path: Path) -> None:
    (tmp_path / "own.txt").touch()
    check_replaceable(tmp_path, {"own.txt"}.__contains__, "--out")
    check_replaceable(tmp_path / "new", {"own.txt"}.__contains__, "--out")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"contains notes\.txt, which this command does not write"):
        check_replaceable(tmp_path, {"own.txt"}.__contains__, "--out")
    with pytest.raises(ConfigError, match="is a file"):
        check_replaceable(tmp_path / "own.txt", {"own.txt"}.__contains__, "--out")
