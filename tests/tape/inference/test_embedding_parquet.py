"""Parquet files of embeddings."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tape.errors import ConfigError
from tape.inference import embedding_parquet
from tape.inference.embedded_proteins import EmbeddedProteins
from tape.inference.embedding_files import embeddings_file, write_embeddings
from tape.inference.embedding_journal import EmbeddingJournal, read_places

pyarrow = pytest.importorskip("pyarrow")

LENGTHS = {"sp|a/1": 3, "b": 1, "c": 2}


def write(
    path: Path, *, full: bool = True, layers: tuple[int, ...] = (-1,), dtype: str = "float32"
) -> dict[str, np.ndarray]:
    """Write random states of 4 numbers; return them by id as (rows, K, 4)."""
    generator, states = np.random.default_rng(0), {}
    with EmbeddingJournal(path.with_name(path.name + ".partial"), {}) as journal:
        for number, (name, length) in enumerate(LENGTHS.items()):
            rows = generator.standard_normal((length + 2 if full else 1, len(layers), 4)).astype("f4")
            journal.append([(number, (rows.reshape(len(rows), -1), rows[0, 0]))])
            states[name] = rows
    places = read_places(path, {})
    proteins = EmbeddedProteins(
        identifiers=list(LENGTHS),
        sequence=lambda number: "A" * list(LENGTHS.values())[number],
        lengths=np.asarray(list(LENGTHS.values())),
        places=[places[number] for number in range(len(LENGTHS))],
        full_sequence=full,
        layers=layers,
        dtype=dtype,
    )
    write_embeddings(path, proteins, "ab")
    return states


@pytest.mark.parametrize("group", [1, 1 << 20])  # bytes of a row group
def test_pandas_reads_a_row_per_protein(group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_parquet, "_ROW_GROUP", group)
    states = write(tmp_path / "o.parquet")
    frame = pd.read_parquet(tmp_path / "o.parquet")
    assert list(frame.columns) == ["id", "length", "layer", "embedding"]
    assert frame["id"].tolist() == list(LENGTHS)
    assert frame["length"].tolist() == list(LENGTHS.values())
    for name, embedding in zip(frame["id"], frame["embedding"], strict=True):
        np.testing.assert_array_equal(np.stack(embedding), states[name][1:-1, 0])
    metadata = pyarrow.parquet.read_schema(tmp_path / "o.parquet").metadata
    assert {key: metadata[key] for key in (b"schema", b"model_sha256")} == {
        b"schema": b"proteinlm-embeddings",
        b"model_sha256": b"ab",
    }


def test_means_of_several_layers_are_several_rows(tmp_path: Path) -> None:
    states = write(tmp_path / "o.parquet", full=False, layers=(0, -1), dtype="float16")
    frame = pd.read_parquet(tmp_path / "o.parquet")
    assert frame["layer"].tolist() == [0, -1] * 3
    found = np.stack(frame["embedding"])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.concatenate([states[name][0] for name in LENGTHS]).astype("f2"))


def test_states_of_several_layers_are_several_rows(tmp_path: Path) -> None:
    states = write(tmp_path / "o.parquet", layers=(0, -1))
    frame = pd.read_parquet(tmp_path / "o.parquet")
    for _, row in frame.iterrows():
        expected = states[row["id"]][1:-1, [0, -1].index(row["layer"])]
        np.testing.assert_array_equal(np.stack(row["embedding"]), expected)


def test_without_pyarrow_the_extra_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'proteinlm\[parquet\]'"):
        embeddings_file(tmp_path / "o.parquet")
