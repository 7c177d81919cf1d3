"""Arrays of .npz files: equal to numpy's, and never more memory than the file contains."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tape.errors import DataError
from tape.io import npz_files
from tape.io.npz_files import read_npz, read_npz_shape

DAMAGED = "truncated, damaged, or not an .npz file"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_equal_those_of_numpy(tmp_path: Path, save: object) -> None:
    arrays = {
        "primary": np.array("MKVLA"),
        "tertiary": np.asfortranarray(np.arange(15, dtype="f4").reshape(5, 3)),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), ">i2"),
        "scalar": np.float64(3.5),
    }
    save(tmp_path / "x.npz", **arrays)  # type: ignore[operator]
    read = read_npz(tmp_path / "x.npz")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == np.asarray(array).dtype
        assert read_npz_shape(tmp_path / "x.npz", name) == np.shape(array)


def write(path: Path, content: bytes, name: str = "x.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def array_file(shape: str, content: bytes = b"", descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    "content",
    [
        array_file("(1099511627776,)"),
        array_file("(4294967296, 4294967296, 4294967296)"),
        array_file("(-1,)"),
        array_file("('a',)"),
        array_file("(3,)", bytes(11)),
        array_file("(1,)", bytes(4), "'|O'"),
        array_file("(1,)", bytes(4), "'<U1000000000'"),
        array_file("(1,)", bytes(4), "[('a', '<f4')]"),
        array_file("(1,)", bytes(4), "{'names': ['a'], 'formats': ['<f4'], 'offsets': [1180591620717411303424]}"),
        array_file("(" * 5000),
        array_file("(1,)", bytes(4), "'"),
        b"\x93NUMPY\x02\x00" + b"\xff" * 4,
        bytes(1000),
        b"",
    ],
)
def test_headers_that_the_content_contradicts_are_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "x.npz", content)
    with pytest.raises(DataError, match=rf"x\.npz: {DAMAGED}"):
        read_npz(path)


def test_an_archive_that_decompresses_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_files, "MOST_BYTES", 1 << 20)
    path = write(tmp_path / "x.npz", array_file("(1048576,)", bytes(4 << 20)))
    with pytest.raises(DataError, match=r"x\.npz: its arrays have more than 1,048,576 bytes"):
        read_npz(path)


def test_pickled_objects_and_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    (tmp_path / "plain.npz").write_bytes(stream.getvalue())
    for name in ("o.npz", "plain.npz", "absent.npz"):
        with pytest.raises(DataError, match=DAMAGED):
            read_npz(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("x.npy", archive.read("x.npy"))
    with pytest.raises(DataError, match=r"a\.npz: two of its arrays have one name"):
        read_npz(tmp_path / "a.npz")


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"x\.npz: no field 'y'"):
        read_npz_shape(tmp_path / "x.npz", "y")
