"""TAPE's files and checks of arguments, from ``tape.utils``."""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import quoted
from tape.io import lmdb_store
from tape.io.run_layout import experiment_name


def int_or_str(arg: str) -> int | str:
    """The number that a text is, else the text."""
    try:
        return int(arg)
    except ValueError:
        return arg


def check_is_file(file_path: str | None) -> str | None:
    """The path of a file that exists, or None; a type of argparse."""
    if file_path is None or os.path.isfile(file_path):
        return file_path
    raise argparse.ArgumentTypeError(f"{quoted(file_path)} is not an existing file")


def check_is_dir(dir_path: str | None) -> str | None:
    """The path of a directory that exists, or None; a type of argparse."""
    if dir_path is None or os.path.isdir(dir_path):
        return dir_path
    raise argparse.ArgumentTypeError(f"{quoted(dir_path)} is not an existing directory")


def get_expname(exp_name: str | None, task: str | None = None, model_type: str | None = None) -> str:
    """Name of a run directory; see :func:`tape.io.run_layout.experiment_name`."""
    return experiment_name(str(task), str(model_type), exp_name=exp_name)


def write_lmdb(filename: str | Path, iterable: Iterable[dict[str, Any]], map_size: int = 0) -> None:
    """Write records as an LMDB of TAPE's format; ``map_size`` is ignored, since the file grows as needed."""
    lmdb_store.write_lmdb(Path(filename), iterable)


class IncrementalNPZ:
    """An ``.npz`` file to which arrays are added one after another; a context manager.

    Args:
        file: path, to which ``.npz`` is added if it is missing.
    """

    def __init__(self, file: str | Path) -> None:
        path = os.fspath(file)
        self.zip = zipfile.ZipFile(path if path.endswith(".npz") else f"{path}.npz", "w", allowZip64=True)

    def savez(self, **arrays: Any) -> None:
        """Add arrays by name; anything else, such as a dictionary, as a 0-d object array."""
        for name, value in arrays.items():
            with self.zip.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=True)

    def close(self) -> None:
        self.zip.close()

    def __enter__(self) -> IncrementalNPZ:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
