"""Errors of disks: full, over a limit, failing."""

from __future__ import annotations

import errno
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tape.errors import ConfigError, OutputError
from tape.io.lmdb_store import write_lmdb
from tape.io.writing import atomic_directory, atomic_write, output_errors
from tests.support.small_disk import mounted_tmpfs


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files can't grow beyond `size` bytes; writing more is an error as on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _torch(path: Path) -> None:
    with atomic_write(path) as stream:
        torch.save({"w": torch.zeros(1 << 18)}, stream)


def _safetensors(path: Path) -> None:
    with output_errors(path):
        save_file({"w": torch.zeros(1 << 18)}, path)


def _npz(path: Path) -> None:
    with atomic_write(path) as stream:
        np.savez(stream, w=np.zeros(1 << 18))


def _hdf5(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with atomic_write(path, "w+b") as stream, h5py.File(stream, "w") as file:
        file.create_dataset("w", data=np.ones(1 << 18))


def _lmdb(path: Path) -> None:
    write_lmdb(path, ({"w": bytes(1 << 16), "n": number} for number in range(64)))


def _text(path: Path) -> None:
    with atomic_directory(path) as folder, atomic_write(folder / "x.txt", "w") as stream:
        stream.write("x" * (1 << 20))


WRITERS = (_torch, _safetensors, _npz, _hdf5, _lmdb, _text)


@pytest.mark.parametrize("write", WRITERS)
def test_every_writer_names_the_file_on_a_full_disk(write: Callable[[Path], None]) -> None:
    with mounted_tmpfs("size=256k") as disk:
        with pytest.raises(OutputError, match=r"disk/out.*: can't be written: No space left on device; .* are free"):
            write(disk / "out")
        assert [path for path in disk.iterdir() if path.name != "out"] == []


@pytest.mark.parametrize("write", [writer for writer in WRITERS if writer is not _lmdb])
def test_every_writer_names_the_file_over_the_limit_of_its_size(write: Callable[[Path], None], tmp_path: Path) -> None:
    with file_size_limit(128 << 10):
        with pytest.raises(OutputError, match=r"out.*: can't be written: File too large; .* are free"):
            write(tmp_path / "out")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "x"),
        lmdb.DiskError("mdb_txn_commit: No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 592"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    ],
)
def test_errors_of_a_disk_are_recognized(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x\.bin: can't be written: .*; 2\.00 MB are needed, .* are free"):
        with output_errors(tmp_path / "x.bin", 2_000_000):
            raise error


def test_the_free_space_of_a_failing_disk_is_not_stated(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="x: can't be written: Input/output error$"), output_errors(tmp_path / "x"):
        raise OSError(errno.EIO, "x")


def test_the_free_space_is_that_at_the_time_of_the_error() -> None:
    with mounted_tmpfs("size=64k") as disk:
        with pytest.raises(OutputError, match=r"1\.05 MB are needed, 0 bytes are free$"):
            with atomic_write(disk / "x", needed=1 << 20) as stream:
                stream.write(bytes(1 << 20))
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "x"), ConfigError("x")])
def test_other_errors_pass_unchanged(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, output_errors(tmp_path / "x.bin"):
        raise error
    assert caught.value is error


def test_the_error_can_be_sent_to_other_processes() -> None:
    error = OutputError("x.bin", "No space left on device", "1 bytes are free")
    copy: Any = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason) == (str(error), error.reason)
