"""``dataset.json`` beside a task's files: the data's name, source and licence, and whether it is simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tape.errors import DataError
from tape.io.json_files import read_json_object

RECORD_NAME = "dataset.json"


def dataset_provenance(dataset: Any) -> dict[str, Any]:
    """The record of the folder that a data set's file lies in.

    Returns:
        At least ``name`` and ``simulated`` (None: not stated, where there is no record).

    Raises:
        DataError: the record is damaged.
    """
    path = getattr(getattr(dataset, "data", None), "path", None)
    if path is None:
        return {"name": type(dataset).__name__, "simulated": None}
    file = Path(path).parent / RECORD_NAME
    if not file.is_file():
        return {"name": Path(path).parent.name, "simulated": None}
    return {"name": Path(path).parent.name, "simulated": None, **read_json_object(file, DataError)}
