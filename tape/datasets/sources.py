"""Files of records as data sets of dictionaries: LMDB, FASTA, JSON, tables, npz.

Class names and constructors are TAPE's. Every record has ``id`` and ``primary``; its other fields depend on the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from tape.errors import DataError
from tape.io.json_files import read_json_object
from tape.io.lmdb_store import LMDBReader
from tape.io.npz_files import read_npz, read_npz_shape
from tape.io.sequences import (
    IDENTIFIER_KEYS,
    ROW_SUFFIXES,
    SEQUENCE_KEYS,
    LabeledRow,
    read_rows,
    read_sequences,
    split_suffix,
)
from tape.io.text_files import COMPRESSIONS

Record = dict[str, Any]
PROVENANCE_NAME = "dataset.json"


class RecordSource(Dataset[Record]):
    """Base class of the files of records.

    Attributes:
        path: the file or directory.
        has_labels: False if the records have no labels per residue, so that a stop ``*`` at the end may be removed.
        known_index: cached result of :func:`tape.datasets.index.build_index`.
        first_number: number of the first record in messages.
    """

    path: Path
    known_index: Any = None
    has_labels = True
    first_number = 1

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Record:
        raise NotImplementedError

    def where(self, index: int, record: Record | None = None) -> str:
        """File, record number and id, for error messages."""
        identifier = "" if record is None or record.get("id") in (None, str(index)) else f" ({record['id']})"
        return f"{self.path}, record {index + self.first_number}{identifier}"


class LMDBDataset(RecordSource):
    """Records of a TAPE LMDB file, read on access; each worker process opens the file for itself.

    Args:
        data_file: the LMDB directory.
        in_memory: cache the records that have been read.

    Raises:
        DataError: the file is missing or damaged.
    """

    first_number = 0  # as the keys of the file

    def __init__(self, data_file: str | os.PathLike[str], in_memory: bool = False) -> None:
        self.path = Path(data_file)
        self._reader = LMDBReader(self.path)
        self._cache: dict[int, Record] | None = {} if in_memory else None

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Record:
        index = int(index)
        if self._cache is None:
            return self._reader[index]
        if index not in self._cache:
            self._cache[index] = self._reader[index]
        return self._cache[index]


class _ListedRecords(RecordSource):
    """Records in a list in memory."""

    def __init__(self, path: str | os.PathLike[str], records: Sequence[Record]) -> None:
        self.path = Path(path)
        self._records = records
        if not records:
            raise DataError(f"{path}: contains no record")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self._records):
            raise IndexError(index)
        return self._records[index]


def _sequence_records(path: str | os.PathLike[str]) -> list[Record]:
    return [
        {"id": record.identifier, "primary": record.sequence, "protein_length": len(record.sequence)}
        for record in read_sequences(path)
    ]


class FastaDataset(_ListedRecords):
    """Sequences of a FASTA file, optionally compressed, with the fields ``id``, ``primary`` and ``protein_length``.

    Args:
        data_file: the file.
        in_memory: accepted for TAPE's signature; the sequences are always in memory.
    """

    def __init__(self, data_file: str | os.PathLike[str], in_memory: bool = False) -> None:
        super().__init__(data_file, _sequence_records(data_file))


class JSONDataset(_ListedRecords):
    """Records of a .json list or a .jsonl file. A record without ``id`` gets its number; other fields are kept.

    Args:
        data_file: the file.
        in_memory: accepted for TAPE's signature.

    Raises:
        DataError: the file is not JSON, or an entry is not an object. Names the record.
    """

    def __init__(self, data_file: str | os.PathLike[str], in_memory: bool = True) -> None:
        super().__init__(data_file, _json_records(Path(data_file)))


def _json_records(path: Path) -> list[Record]:
    records = []
    for index, row in enumerate(read_rows(path)):
        record = dict(row.fields)
        record["id"] = str(record.get("id", index))
        records.append(record)
    return records


class TableDataset(_ListedRecords):
    """Labeled records of a .csv or .tsv file, or of a FASTA file whose headers read ``>id name=value``.

    A cell is parsed if it is JSON (a number, a list such as ``[0, 2, 1]``) or consists of numbers separated by blanks
    or commas; otherwise it stays text. The sequence is in column ``primary``, ``sequence`` or ``text``.

    Args:
        data_file: the file, optionally compressed.
        in_memory: accepted for TAPE's signature.
    """

    def __init__(self, data_file: str | os.PathLike[str], in_memory: bool = True) -> None:
        super().__init__(data_file, [_table_record(index, row) for index, row in enumerate(read_rows(data_file))])


def _table_record(index: int, row: LabeledRow) -> Record:
    record: Record = {}
    for name, value in row.fields.items():
        is_text = name in SEQUENCE_KEYS or name in IDENTIFIER_KEYS or not isinstance(value, str)
        record[name] = value if is_text else _cell(value)
    sequence = next((record[name] for name in ("primary", *SEQUENCE_KEYS) if name in record), None)
    if sequence is not None:
        record["primary"] = sequence
    record["id"] = str(next((record[name] for name in IDENTIFIER_KEYS if record.get(name) is not None), index))
    return record


def _cell(text: str) -> Any:
    """Parse the text of a table cell."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        return text
    return numbers or text


class NPZDataset(RecordSource):
    """A directory of .npz files with one record per file, sorted by name.

    Args:
        data_file: the directory.
        in_memory: accepted for TAPE's signature.
        split_files: names of the files to use (with or without ``.npz``); None means all.

    Raises:
        DataError: not a directory, or none of the files is in it.
    """

    def __init__(
        self,
        data_file: str | os.PathLike[str],
        in_memory: bool = False,
        split_files: Sequence[str] | None = None,
    ) -> None:
        self.path = Path(data_file)
        if not self.path.is_dir():
            raise DataError(f"{self.path}: not a directory of .npz files")
        self._files = sorted(self.path.glob("*.npz"))
        if split_files is not None:
            wanted = {name.removesuffix(".npz") for name in split_files}
            self._files = [file for file in self._files if file.stem in wanted]
        if not self._files:
            raise DataError(f"{self.path}: no .npz file there")

    @property
    def names(self) -> list[str]:
        """The files' names without ``.npz``."""
        return [file.stem for file in self._files]

    def shape_of(self, index: int, field: str) -> tuple[int, ...]:
        """Shape of an array of a record, from its header alone.

        Raises:
            DataError: no such array, or a damaged file.
        """
        return read_npz_shape(self._files[index], field)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        file = self._files[index]
        record: Record = dict(read_npz(file))
        record["id"] = file.stem
        if "primary" in record:
            record["primary"] = str(record["primary"])
        return record


def dataset_factory(data_file: str | os.PathLike[str], *args: Any, **kwargs: Any) -> RecordSource:
    """Open a file of records with the class for its suffix.

    Args:
        data_file: .lmdb, .json, .jsonl, FASTA or any other sequence file that :mod:`tape.io.sequences` reads (all but
            LMDB optionally with .gz, .xz or .zst), or a directory of .npz files.

    Raises:
        DataError: the file is missing, or its format is unknown.
    """
    path = Path(data_file)
    if not path.exists():
        raise DataError(f"{path}: no such file or directory")
    suffix = split_suffix(path)[0]
    if suffix == ".lmdb":
        return LMDBDataset(path, *args, **kwargs)
    if suffix in (".json", ".jsonl"):
        return JSONDataset(path, *args, **kwargs)
    if path.is_dir():
        return NPZDataset(path, *args, **kwargs)
    return FastaDataset(path, *args, **kwargs)  # read_sequences distinguishes the remaining formats


def split_source(folder: str | os.PathLike[str], stem: str, in_memory: bool = False) -> RecordSource | None:
    """Open the labeled records of ``FOLDER/STEM``; None if there is no such file.

    The file is ``STEM.lmdb``, or ``STEM.json``, ``.jsonl``, ``.csv``, ``.tsv`` or FASTA (optionally with .gz, .xz or
    .zst), or a directory ``STEM`` of .npz files.

    Raises:
        DataError: the split exists in two formats, or the file is damaged.
    """
    folder = Path(folder)
    names = [f"{stem}.lmdb", stem]
    names += [
        f"{stem}{suffix}{packed}" for suffix in ROW_SUFFIXES if suffix != ".lmdb" for packed in ("", *COMPRESSIONS)
    ]
    found = [folder / name for name in names if (folder / name).exists()]
    if len(found) > 1:
        others = ", ".join(path.name for path in found[1:])
        raise DataError(f"{found[0]}: the same split exists as {others}; keep one of them")
    if not found:
        return None
    suffix = split_suffix(found[0])[0]
    if suffix in (".lmdb", ".json", ".jsonl") or found[0].is_dir():
        return dataset_factory(found[0], in_memory=in_memory)
    return TableDataset(found[0])


def dataset_provenance(dataset: Any) -> dict[str, Any]:
    """Read ``dataset.json`` in the folder of a data set's file: name, source and license of the data.

    Returns:
        At least ``name`` and ``simulated`` (None if there is no ``dataset.json``).

    Raises:
        DataError: ``dataset.json`` is damaged.
    """
    path = getattr(getattr(dataset, "data", None), "path", None)
    if path is None:
        return {"name": type(dataset).__name__, "simulated": None}
    file = Path(path).parent / PROVENANCE_NAME
    if not file.is_file():
        return {"name": Path(path).parent.name, "simulated": None}
    return {"name": Path(path).parent.name, "simulated": None, **read_json_object(file, DataError)}
