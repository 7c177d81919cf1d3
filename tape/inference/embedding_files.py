"""Output files of embeddings: TAPE's .npz, HDF5 and Parquet. Each format has a module of its own, except .npz.

.npz (TAPE's layout): one 0-d object array per protein, named by its id. It contains a dictionary with ``pooled`` (P,)
and ``avg`` (H,), or ``pooled`` and ``seq`` (L + 2, H). Several layers are the first dimension: ``avg`` (K, H), ``seq``
(K, L + 2, H). Reading it requires ``allow_pickle=True``.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, quoted
from tape.io.text_files import display_name
from tape.io.writing import atomic_write, check_output_file

from .embedded_proteins import EmbeddedProteins
from .embedding_hdf5 import HDF5_SUFFIXES, check_hdf5_identifiers, import_h5py, write_hdf5
from .embedding_parquet import PARQUET_SUFFIX, import_pyarrow, write_parquet

_SUFFIXES = (".npz", *HDF5_SUFFIXES, PARQUET_SUFFIX)
# Suffixes of other formats, which are refused. Any other suffix is treated as a part of the name.
_ARRAY_FORMATS = {".arrow", ".avro", ".bin", ".feather", ".mat", ".nc", ".npy", ".pt", ".pth", ".zarr"}
_TEXT_FORMATS = {".csv", ".fasta", ".json", ".jsonl", ".tsv", ".txt", ".xls", ".xlsx"}
_OTHER_FORMATS = {".gz", ".lmdb", ".pickle", ".pkl", ".safetensors", ".tar", ".xz", ".zip", ".zst"}


def embeddings_file(path: Path) -> Path:
    """The output file: ``path``, with ``.npz`` added if it has no known suffix. Called before anything is computed.

    Raises:
        ConfigError: ``path`` has the suffix of another format, its folder does not exist or is not writable, or the
            library of its format is not installed.
    """
    if path.suffix not in _SUFFIXES and path.suffix.lower() in {
        *_ARRAY_FORMATS,
        *_TEXT_FORMATS,
        *_OTHER_FORMATS,
        *_SUFFIXES,
    }:
        raise ConfigError(
            f"{path}: can't write embeddings as {path.suffix}; give a name that ends in .npz (TAPE's layout), .h5,"
            " .hdf5 or .parquet, or one without a suffix, to which .npz is added"
        )
    if path.suffix not in _SUFFIXES:
        path = path.with_name(path.name + ".npz")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such directory to write {path.name} to")
    check_output_file(path, "output file")
    if path.suffix in HDF5_SUFFIXES:
        import_h5py()
    elif path.suffix == PARQUET_SUFFIX:
        import_pyarrow()
    return path


def check_layout(path: Path, layout: str | None, layer_count: int) -> None:
    """Check the layout that was given for HDF5. Called before anything is computed.

    Args:
        path: the output file.
        layout: one of :data:`tape.inference.embedding_hdf5.LAYOUTS`; None: not given.
        layer_count: number of layers per protein.

    Raises:
        ConfigError: the file is not HDF5, or the layout has no place for several layers.
    """
    if layout is not None and path.suffix not in HDF5_SUFFIXES:
        raise ConfigError(f"{path}: --hdf5_layout is for .h5 and .hdf5; leave it out, or give such a name")
    if layout == "table" and layer_count > 1:
        raise ConfigError("--hdf5_layout table holds one layer; choose one, or the default layout")


def check_identifiers(
    path: Path, identifiers: Sequence[str], data_file: str | os.PathLike[str], layout: str | None = None
) -> None:
    """Check that every protein has a name of its own in the output file. Called before anything is computed.

    Args:
        path: the output file.
        identifiers: ids of the proteins.
        data_file: the file with the proteins, for messages.
        layout: layout of an HDF5 file.

    Raises:
        DataError: two proteins have the same id; or, for .npz, one has the other's id with ``.npy`` after it, which
            ``numpy.load`` does not distinguish; or an id can't be the name of an HDF5 data set, as the layout needs.
    """
    seen: set[str] = set()
    for identifier in identifiers:
        if identifier in seen:
            raise DataError(
                f"{display_name(data_file)}: two proteins have the id {quoted(identifier)}; embeddings are stored by id"
            )
        seen.add(identifier)
    clash = next((name for name in identifiers if name.endswith(".npy") and name.removesuffix(".npy") in seen), None)
    if path.suffix == ".npz" and clash is not None:
        raise DataError(
            f"{display_name(data_file)}: has the ids {quoted(clash.removesuffix('.npy'))} and {quoted(clash)}, which an"
            " .npz file can't hold both; write .h5, or change one of them"
        )
    if path.suffix in HDF5_SUFFIXES:
        check_hdf5_identifiers(identifiers, data_file, layout)


def write_embeddings(path: Path, proteins: EmbeddedProteins, model_sha256: str, layout: str | None = None) -> None:
    """Write the output file atomically, with few proteins in memory at a time.

    Args:
        path: the file, of any of the three formats.
        proteins: the embeddings.
        model_sha256: hash of the model, which HDF5 and Parquet record.
        layout: layout of an HDF5 file.

    Raises:
        ConfigError: a value is too large for the file's type.
    """
    with atomic_write(path, "w+b") as stream:  # HDF5 reads from the file that it writes
        if path.suffix in HDF5_SUFFIXES:
            write_hdf5(stream, proteins, model_sha256, layout)
        elif path.suffix == PARQUET_SUFFIX:
            write_parquet(stream, proteins, model_sha256)
        else:
            _write_npz(stream, proteins)


def _write_npz(stream: Any, proteins: EmbeddedProteins) -> None:
    """As ``np.savez``, whose keyword arguments do not allow the name ``file``."""
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        for number, identifier in enumerate(proteins.identifiers):
            values, pooled = proteins.read(number)
            array = np.empty((), dtype=object)
            array[()] = {"pooled": pooled, ("seq" if proteins.full_sequence else "avg"): values}
            with archive.open(f"{identifier}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=True)
