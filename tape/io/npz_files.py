"""Reading .npz files of untrusted origin: no pickles, and no memory beyond what the file really contains."""

from __future__ import annotations

import ast
import struct
import tokenize
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from tape.errors import DataError

from .zip_files import ZIP_ERRORS

MOST_BYTES = 1 << 32  # of the arrays of one file, when decompressed
_LONGEST_HEADER = 10_000  # characters; numpy's own limit
_KINDS = "biufcSU"  # numbers, and texts of a fixed length
# ZIP_ERRORS, and what numpy's array headers cause (RecursionError, which they do, too, is a RuntimeError)
_ERRORS = (*ZIP_ERRORS, OSError, tokenize.TokenError, SyntaxError, TypeError, MemoryError)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name.

    Raises:
        DataError: the file is damaged, contains pickled objects, or states more than it contains. Names it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if sum(member.file_size for member in members) > MOST_BYTES:
                raise DataError(f"{path}: its arrays have more than {MOST_BYTES:,} bytes, which no record has")
            if len({member.filename for member in members}) != len(members):
                raise DataError(f"{path}: two of its arrays have one name")
            return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}
    except _ERRORS as error:
        raise DataError(f"{path}: truncated, damaged, or not an .npz file without pickled objects") from error


def read_npz_shape(path: Path, name: str) -> tuple[int, ...]:
    """The shape of one array of a file, from its header alone.

    Raises:
        DataError: there is no such array, or the file is damaged. Names the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise DataError(f"{path}: no field {name!r}")
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as stream:
                return _read_header(stream, member.file_size)[0]
    except _ERRORS as error:
        raise DataError(f"{path}: truncated, damaged, or not an .npz file without pickled objects") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        shape, is_fortran, dtype = _read_header(stream, member.file_size)
        content = stream.read()  # bounded by file_size, and compared with its CRC
    if len(content) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{member.filename}: {len(content)} bytes for an array of shape {shape}")
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if is_fortran else "C")


def _read_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array of ``size`` bytes including the header.

    Raises:
        ValueError: the shape does not fit the size, or the type is not plain data.
    """
    version = npy.read_magic(stream)
    length = struct.unpack("<H", stream.read(2))[0] if version == (1, 0) else struct.unpack("<I", stream.read(4))[0]
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    values = ast.literal_eval(stream.read(length).decode("latin-1").strip())
    shape, dtype = values["shape"], np.dtype(values["descr"])
    if dtype.kind not in _KINDS or not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
        raise ValueError("not an array of plain data")
    if min(shape, default=0) < 0 or dtype.itemsize * int(np.prod(shape, dtype=object)) > size:
        raise ValueError(f"shape {shape} in {size} bytes")
    return shape, bool(values["fortran_order"]), dtype
