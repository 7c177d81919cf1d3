"""Parquet files as records."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.records import open_records

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def test_values_keep_their_types_and_missing_ones_are_none(tmp_path: Path) -> None:
    path = tmp_path / "my.parquet"
    frame = {
        "id": ["NA", "b"],
        "sequence": ["NA", "MKT"],
        "Tm": [57.5, None],
        "count": pandas.array([3, None], dtype="Int64"),
        "sites": [["x", "y"], None],
    }
    pandas.DataFrame(frame).to_parquet(path)
    first, second = open_records(path, with_fields=True)
    assert (first.identifier, first.sequence, first.where) == ("NA", "NA", f"{path}, record 1 (NA)")
    assert first.fields == {"id": "NA", "Tm": 57.5, "count": 3, "sites": ["x", "y"]}
    assert second.fields == {"id": "b", "Tm": None, "count": None, "sites": None}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"my\.parquet: can't be read as Parquet"):
        list(open_records(path))
