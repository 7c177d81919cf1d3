"""Parquet files of embeddings, for pandas, polars, DuckDB and Arrow.

One row per protein and layer, in the order of the input: ``id``, ``length`` (residues), ``layer``, and ``embedding``, a
list of H numbers (the mean over residues) or of L lists of H numbers (the states of the residues, without special
tokens). The metadata of the schema are those of HDF5: ``schema``, ``version`` and ``model_sha256``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tape.errors import import_extra

from .embedded_proteins import SCHEMA, EmbeddedProteins

PARQUET_SUFFIX = ".parquet"
_VERSION = 2
_ROW_GROUP = 32 << 20  # bytes of embeddings


def write_parquet(stream: Any, proteins: EmbeddedProteins, model_sha256: str) -> None:
    """Write the embeddings to a stream, in row groups of about 32 MB."""
    arrow, parquet = import_pyarrow()
    schema = _schema(arrow, proteins, model_sha256)
    # The values look random, so that compression would cost time and save a tenth.
    with parquet.ParquetWriter(stream, schema, compression="none", use_dictionary=["id"]) as writer:
        first = size = 0
        for number, place in enumerate(proteins.places):
            size += place.rows * place.columns * np.dtype(proteins.dtype).itemsize
            if size >= _ROW_GROUP or number + 1 == len(proteins.places):
                writer.write_table(_table(arrow, schema, proteins, range(first, number + 1)))
                first, size = number + 1, 0


def _schema(arrow: Any, proteins: EmbeddedProteins, model_sha256: str) -> Any:
    vector = arrow.list_(arrow.from_numpy_dtype(proteins.dtype), proteins.hidden_size)
    fields = {
        "id": arrow.string(),
        "length": arrow.int64(),
        "layer": arrow.int32(),
        "embedding": arrow.list_(vector) if proteins.full_sequence else vector,
    }
    return arrow.schema(fields, metadata={"schema": SCHEMA, "version": str(_VERSION), "model_sha256": model_sha256})


def _table(arrow: Any, schema: Any, proteins: EmbeddedProteins, numbers: range) -> Any:
    """A row group: the proteins ``numbers``."""
    count = len(proteins.layers)
    values = [proteins.residues(number) for number in numbers]
    flat = np.concatenate([value.reshape(-1) for value in values])
    embedding = arrow.FixedSizeListArray.from_arrays(arrow.array(flat), proteins.hidden_size)
    lengths = np.repeat(proteins.lengths[numbers.start : numbers.stop], count)
    if proteins.full_sequence:
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        embedding = arrow.ListArray.from_arrays(arrow.array(offsets), embedding)
    columns = [
        arrow.array([proteins.identifiers[number] for number in numbers for _ in proteins.layers]),
        arrow.array(lengths.astype(np.int64)),
        arrow.array(np.tile(np.asarray(proteins.layers, dtype=np.int32), len(numbers))),
        embedding,
    ]
    return arrow.table(columns, schema=schema)


def import_pyarrow() -> tuple[Any, Any]:
    """The library pyarrow, and its module of Parquet files.

    Raises:
        ConfigError: it is not installed.
    """
    need = "Parquet needs the package pyarrow"
    return import_extra("pyarrow", need, "parquet"), import_extra("pyarrow.parquet", need, "parquet")
