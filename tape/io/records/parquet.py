"""Parquet files: one record per row. pandas and pyarrow (extra ``parquet``) read them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tape.errors import DataError, import_extra
from tape.io.text_files import display_name

from .record import Row


def parquet_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Rows of a Parquet file. A missing value is None, and an array is a list.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: the file can't be read as Parquet.
    """
    shown = display_name(path)
    for number, fields in enumerate(_read(path, shown), start=1):
        yield Row(fields, f"{shown}, record {number}")


def _read(path: str | os.PathLike[str], shown: str) -> Iterator[dict[str, Any]]:
    pyarrow = import_extra("pyarrow", "Parquet files need pyarrow", "parquet")
    import pandas

    try:
        frame = pandas.read_parquet(path, engine="pyarrow", dtype_backend="pyarrow")
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{shown}: can't be read as Parquet: {error}") from error
    columns = [str(name) for name in frame.columns]
    for values in zip(*(frame.iloc[:, place].tolist() for place in range(len(columns))), strict=True):
        yield dict(zip(columns, map(_plain, values), strict=True))


def _plain(value: Any) -> Any:
    """A value of Python; ``pandas.NA`` is None."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple | dict | str | bytes):
        return value
    is_missing = type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))
    return None if is_missing else value
