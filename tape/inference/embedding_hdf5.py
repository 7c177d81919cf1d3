"""HDF5 files of embeddings, as biotrainer and bio_embeddings read them.

One data set per protein: (H,) the mean over residues, or (L, H) the states of the residues, without special tokens.
With several layers (K, H) or (K, L, H). Its attribute ``original_id`` is the protein's id. The layouts differ in the
names of the data sets:

- ``sequence_hash`` (default): biotrainer's hash of the sequence, by which it looks embeddings up. A further protein of
  the same sequence has ``-2``, ``-3`` ... after it. Ids may contain anything.
- ``id``: the id, which must not be ``.`` or contain ``/``, as HDF5 has paths.
- ``table``: one array of all proteins, without ``original_id``: ``ids`` (N,) strings and ``lengths`` (N,) residues in
  the order of the input; ``pooled`` (N, P) and ``avg`` (N, H), or ``states`` (tokens of all proteins, H) with
  ``offsets`` (N + 1,): protein i has the rows offsets[i] to offsets[i + 1], including ``<cls>`` and ``<sep>``.

Attributes of the file: ``schema`` "proteinlm-embeddings", ``version`` (1 of ``table``, 2 of the others), ``layout``,
``layers`` (K,), ``model_sha256``.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tape.errors import DataError, import_extra, quoted
from tape.io.text_files import display_name

from .embedded_proteins import SCHEMA, EmbeddedProteins

HDF5_SUFFIXES = (".h5", ".hdf5")
LAYOUTS = ("sequence_hash", "id", "table")  # the first is the default
_VERSIONS = {"sequence_hash": 2, "id": 2, "table": 1}
_BLOCK = 1024  # proteins of a table written at a time


def check_hdf5_identifiers(
    identifiers: Sequence[str], data_file: str | os.PathLike[str], layout: str | None = None
) -> None:
    """Check that ids can be names of data sets, if the layout needs that.

    Raises:
        DataError: an id can't.
    """
    refused = next((name for name in identifiers if "/" in name or name in ("", ".")), None)
    if layout == "id" and refused is not None:
        raise DataError(
            f"{display_name(data_file)}: the id {quoted(refused)} can't be the name of an HDF5 data set, which is not"
            " '.' and has no '/'; leave out --hdf5_layout id (the id is then an attribute), or change the id"
        )


def sequence_hash(sequence: str) -> str:
    """Biotrainer's hash of a sequence, see ``calculate_sequence_hash`` there (1.4.0)."""
    return hashlib.sha256(f"{sequence}_{len(sequence)}".encode()).hexdigest()


def write_hdf5(stream: Any, proteins: EmbeddedProteins, model_sha256: str, layout: str | None = None) -> None:
    """Write the embeddings to a stream that is open for reading and writing.

    Args:
        stream: the file.
        proteins: the embeddings.
        model_sha256: hash of the model.
        layout: one of :data:`LAYOUTS`; None: the first.
    """
    layout = layout or LAYOUTS[0]
    with import_h5py().File(stream, "w", track_order=True) as file:  # read in the order of the input
        file.attrs.update(
            schema=SCHEMA,
            version=_VERSIONS[layout],
            layout=layout,
            layers=np.asarray(proteins.layers, dtype=np.int64),
            model_sha256=model_sha256,
        )
        if layout == "table":
            _fill_table(file, proteins)
            return
        names = proteins.identifiers if layout == "id" else _hashes(proteins)
        for number, (name, identifier) in enumerate(zip(names, proteins.identifiers, strict=True)):
            dataset = file.create_dataset(name, data=proteins.residues(number))
            dataset.attrs["original_id"] = identifier


def _hashes(proteins: EmbeddedProteins) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for number in range(len(proteins.places)):
        name = sequence_hash(proteins.sequence(number))
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"


def _fill_table(file: Any, proteins: EmbeddedProteins) -> None:
    dtype = np.dtype(proteins.dtype).newbyteorder("<")
    file.create_dataset("ids", data=list(proteins.identifiers), dtype=import_h5py().string_dtype())
    file.create_dataset("lengths", data=proteins.lengths.astype(np.int64))
    count = len(proteins.places)
    if proteins.full_sequence:
        offsets = np.concatenate([[0], np.cumsum([place.rows for place in proteins.places])]).astype(np.int64)
        file.create_dataset("offsets", data=offsets)
        states = file.create_dataset("states", (int(offsets[-1]), proteins.hidden_size), dtype=dtype)
        for number in range(count):
            states[offsets[number] : offsets[number + 1]] = proteins.read(number)[0]
        return
    pooled = file.create_dataset("pooled", (count, proteins.places[0].pooled), dtype=dtype)
    mean = file.create_dataset("avg", (count, proteins.hidden_size), dtype=dtype)
    for start in range(0, count, _BLOCK):
        block = [proteins.read(number) for number in range(start, min(start + _BLOCK, count))]
        mean[start : start + len(block)] = np.stack([values for values, _ in block])
        pooled[start : start + len(block)] = np.stack([vector for _, vector in block])


def import_h5py() -> Any:
    """The library h5py.

    Raises:
        ConfigError: it is not installed.
    """
    return import_extra("h5py", "HDF5 needs the package h5py", "hdf5")
