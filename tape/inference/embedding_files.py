"""Output files of embeddings: TAPE's .npz, or HDF5.

.npz (TAPE's layout): one 0-d object array per protein, named by its id. It contains a dictionary with ``pooled`` (P,)
and ``avg`` (H,), or ``pooled`` and ``seq`` (L + 2, H). Reading it requires ``allow_pickle=True``.

HDF5 (.h5): ``ids`` (N,) strings and ``lengths`` (N,) residues in the order of the input; ``pooled`` (N, P) and ``avg``
(N, H), or ``states`` (tokens of all proteins, H) with ``offsets`` (N + 1,): protein i has the rows offsets[i] to
offsets[i + 1], including ``<cls>`` and ``<sep>``. Attributes: ``schema`` "proteinlm-embeddings", ``version``,
``model_sha256``.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, quoted
from tape.io.text_files import display_name
from tape.io.writing import atomic_write, check_output_file

from .embedding_journal import Identity, StoredEmbedding

SCHEMA = "proteinlm-embeddings"
SCHEMA_VERSION = 1
_HDF5_SUFFIXES = (".h5", ".hdf5")
_SUFFIXES = (".npz", *_HDF5_SUFFIXES)
# Suffixes of other formats, which are refused. Any other suffix is treated as a part of the name.
_ARRAY_FORMATS = {".arrow", ".avro", ".bin", ".feather", ".mat", ".nc", ".npy", ".parquet", ".pt", ".pth", ".zarr"}
_TEXT_FORMATS = {".csv", ".fasta", ".json", ".jsonl", ".tsv", ".txt", ".xls", ".xlsx"}
_OTHER_FORMATS = {".gz", ".lmdb", ".pickle", ".pkl", ".safetensors", ".tar", ".xz", ".zip", ".zst"}
_BLOCK = 1024  # proteins written to HDF5 at a time


@dataclass(frozen=True)
class EmbeddedProteins:
    """The embeddings to write.

    Attributes:
        identifiers: N unique ids.
        lengths: (N,) number of residues.
        places: for each protein, where its pooled vector is stored, and its mean or its (L + 2, H) states.
        full_sequence: True for the states.
    """

    identifiers: Sequence[str]
    lengths: np.ndarray
    places: Sequence[StoredEmbedding]
    full_sequence: bool


def embeddings_file(path: Path) -> Path:
    """The output file: ``path``, with ``.npz`` added if it has no known suffix. Called before anything is computed.

    Raises:
        ConfigError: ``path`` has the suffix of another format, its folder does not exist or is not writable, or h5py is
            not installed.
    """
    if path.suffix not in _SUFFIXES and path.suffix.lower() in {
        *_ARRAY_FORMATS,
        *_TEXT_FORMATS,
        *_OTHER_FORMATS,
        *_SUFFIXES,
    }:
        raise ConfigError(
            f"{path}: can't write embeddings as {path.suffix}; give a name that ends in .npz (TAPE's layout), .h5"
            " or .hdf5, or one without a suffix, to which .npz is added"
        )
    if path.suffix not in _SUFFIXES:
        path = path.with_name(path.name + ".npz")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such directory to write {path.name} to")
    check_output_file(path, "output file")
    if path.suffix in _HDF5_SUFFIXES:
        _import_h5py()
    return path


def check_identifiers(path: Path, identifiers: Sequence[str], data_file: str | os.PathLike[str]) -> None:
    """Check that every protein has a name of its own in the output file. Called before anything is computed.

    Args:
        path: the output file.
        identifiers: ids of the proteins.
        data_file: the file with the proteins, for messages.

    Raises:
        DataError: two proteins have the same id; or, for .npz, one has the other's id with ``.npy`` after it, which
            ``numpy.load`` does not distinguish.
    """
    seen: set[str] = set()
    for identifier in identifiers:
        if identifier in seen:
            raise DataError(
                f"{display_name(data_file)}: two proteins have the id {quoted(identifier)}; embeddings are stored by id"
            )
        seen.add(identifier)
    clash = next((name for name in identifiers if name.endswith(".npy") and name.removesuffix(".npy") in seen), None)
    if path.suffix not in _HDF5_SUFFIXES and clash is not None:
        raise DataError(
            f"{display_name(data_file)}: has the ids {quoted(clash.removesuffix('.npy'))} and {quoted(clash)}, which an"
            " .npz file can't hold both; write .h5, or change one of them"
        )


def write_embeddings(path: Path, proteins: EmbeddedProteins, identity: Identity) -> None:
    """Write the output file atomically, with one protein in memory at a time."""
    with atomic_write(path, "w+b") as stream:  # HDF5 reads from the file that it writes
        if path.suffix in _HDF5_SUFFIXES:
            with _import_h5py().File(stream, "w") as file:
                file.attrs.update(schema=SCHEMA, version=SCHEMA_VERSION, model_sha256=str(identity["model_sha256"]))
                _fill_hdf5(file, proteins)
        else:
            _write_npz(stream, proteins)


def _write_npz(stream: Any, proteins: EmbeddedProteins) -> None:
    """As ``np.savez``, whose keyword arguments do not allow the name ``file``."""
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        for identifier, place in zip(proteins.identifiers, proteins.places, strict=True):
            states, pooled = place.read()
            array = np.empty((), dtype=object)
            kept = {"seq": states} if proteins.full_sequence else {"avg": states[0]}
            array[()] = {"pooled": pooled, **kept}
            with archive.open(f"{identifier}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=True)


def _fill_hdf5(file: Any, proteins: EmbeddedProteins) -> None:
    file.create_dataset("ids", data=list(proteins.identifiers), dtype=_import_h5py().string_dtype())
    file.create_dataset("lengths", data=proteins.lengths.astype(np.int64))
    if proteins.full_sequence:
        offsets = np.concatenate([[0], np.cumsum([place.rows for place in proteins.places])]).astype(np.int64)
        file.create_dataset("offsets", data=offsets)
        states = file.create_dataset("states", (int(offsets[-1]), proteins.places[0].columns), dtype="<f4")
        for start, place in zip(offsets, proteins.places, strict=False):
            states[start : start + place.rows] = place.read()[0]
        return
    first = proteins.places[0]
    pooled = file.create_dataset("pooled", (len(proteins.places), first.pooled), dtype="<f4")
    mean = file.create_dataset("avg", (len(proteins.places), first.columns), dtype="<f4")
    for start in range(0, len(proteins.places), _BLOCK):
        block = [place.read() for place in proteins.places[start : start + _BLOCK]]
        mean[start : start + len(block)] = np.stack([states[0] for states, _ in block])
        pooled[start : start + len(block)] = np.stack([vector for _, vector in block])


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(f"HDF5 needs the package h5py ({error}): pip install 'proteinlm[hdf5]'") from error
    return h5py
