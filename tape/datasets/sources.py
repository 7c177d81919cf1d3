"""Files of records as data sets of dictionaries: LMDB, FASTA, JSON, tables, npz.

Class names and constructors are TAPE's. Every record has ``id`` and ``primary``; its other fields depend on the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from tape.errors import DataError, listed, quoted
from tape.io.json_files import parse_json, read_json_object
from tape.io.lmdb_store import LMDBReader
from tape.io.npz_files import read_npz, read_npz_shape
from tape.io.records import LABELED_SUFFIXES, Nucleotides, RecordOptions, names_of, open_records
from tape.io.records import Record as FileRecord
from tape.io.records.formats import format_of_suffix, parse_format
from tape.io.text_files import COMPRESSIONS, display_name, is_stream

Record = dict[str, Any]
PROVENANCE_NAME = "dataset.json"
# Columns of tables that are read by tape.io.records.labels, where "0121" has four labels.
_TEXT_COLUMNS = frozenset({"id", "identifier", "name", "ss3", "ss8", "valid_mask", "tertiary"})

logger = logging.getLogger(__name__)


class RecordSource(Dataset[Record]):
    """Base class of the files of records.

    Attributes:
        path: the file or directory.
        has_labels: False if the records have no labels per residue, so that a stop ``*`` at the end may be removed.
        known_index: cached result of :func:`tape.datasets.index.build_index`.
        first_number: number of the first record in messages.
        sha256: SHA-256 of the bytes read, if they are not those of one file that can be read again: of a pipe, or of a
            file of sequences and the table of its labels after it.
    """

    path: Path
    known_index: Any = None
    has_labels = True
    first_number = 1
    sha256: str | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Record:
        raise NotImplementedError

    def where(self, index: int, record: Record | None = None) -> str:
        """File, record number and id, for error messages."""
        identifier = "" if record is None or record.get("id") in (None, str(index)) else f" ({record['id']})"
        return f"{display_name(self.path)}, record {index + self.first_number}{identifier}"


class LMDBDataset(RecordSource):
    """Records of a TAPE LMDB file, read on access; each worker process opens the file for itself.

    Args:
        data_file: the LMDB directory.
        in_memory: cache the records that have been read.
        options: columns to read as ``primary`` and ``id`` instead of those.

    Raises:
        DataError: the file is missing or damaged.
    """

    first_number = 0  # as the keys of the file

    def __init__(
        self, data_file: str | os.PathLike[str], in_memory: bool = False, options: RecordOptions = RecordOptions()
    ) -> None:
        self.path = Path(data_file)
        self._reader = LMDBReader(self.path)
        self._cache: dict[int, Record] | None = {} if in_memory else None
        self._columns = {"primary": options.sequence_column, "id": options.id_column}

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Record:
        index = int(index)
        if self._cache is None:
            return self._read(index)
        if index not in self._cache:
            self._cache[index] = self._read(index)
        return self._cache[index]

    def _read(self, index: int) -> Record:
        record = self._reader[index]
        for name, column in self._columns.items():
            if column is not None and column not in record:
                raise DataError(f"{self.where(index, record)}: no field {quoted(column)}; present: {listed(record)}")
            if column is not None:
                record[name] = record[column]
        return record


class _ListedRecords(RecordSource):
    """Records in a list in memory. Each has ``id``; see :func:`tape.io.records.names_of` for those without one."""

    def __init__(self, path: str | os.PathLike[str], options: RecordOptions, with_fields: bool = True) -> None:
        self.path = Path(path)
        digest = hashlib.sha256() if is_stream(path) else None
        # Nucleotides are reported by build_index, which sees all kinds of sources.
        found = list(open_records(path, options, with_fields=with_fields, nucleotides=Nucleotides.ALLOW, digest=digest))
        if not found:
            raise DataError(f"{display_name(path)}: contains no record")
        self.sha256 = None if digest is None else digest.hexdigest()
        self._warn_of_gaps(found)
        names = names_of(record.identifier for record in found)
        self._records = [self._record(record, name) for record, name in zip(found, names, strict=True)]

    def _record(self, record: FileRecord, name: str) -> Record:
        """The dictionary of a record; ``name`` is its id."""
        return {**record.fields, "id": name, "primary": record.residues}

    def _warn_of_gaps(self, found: Sequence[FileRecord]) -> None:
        gaps = sum(len(record.sequence) - len(record.residues) for record in found if record.aligned)
        if gaps:
            logger.warning("%s: an alignment; %d gaps removed from its sequences", display_name(self.path), gaps)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self._records):
            raise IndexError(index)
        return self._records[index]


class FastaDataset(_ListedRecords):
    """Sequences of a FASTA file, or another one without labels, with ``id``, ``primary`` and ``protein_length``.

    Args:
        data_file: the file, optionally compressed.
        in_memory: accepted for TAPE's signature; the sequences are always in memory.
        options: format and columns of the file.
    """

    def __init__(
        self, data_file: str | os.PathLike[str], in_memory: bool = False, options: RecordOptions = RecordOptions()
    ) -> None:
        super().__init__(data_file, options, with_fields=False)

    def _record(self, record: FileRecord, name: str) -> Record:
        return {**super()._record(record, name), "protein_length": len(record.residues)}


class JSONDataset(_ListedRecords):
    """Records of a .json list or a .jsonl file. A record without ``id`` gets its number; other fields are kept.

    Args:
        data_file: the file.
        in_memory: accepted for TAPE's signature.
        options: format and columns of the file.

    Raises:
        DataError: the file is not JSON, or an entry is not an object with a sequence. Names the record.
    """

    def __init__(
        self, data_file: str | os.PathLike[str], in_memory: bool = True, options: RecordOptions = RecordOptions()
    ) -> None:
        super().__init__(data_file, options)


class TableDataset(_ListedRecords):
    """Labeled records of a .csv or .tsv file, or of a FASTA file whose headers read ``>id name=value``.

    A cell is parsed if it is JSON (a number, a list such as ``[0, 2, 1]``) or consists of numbers separated by blanks
    or commas; otherwise it stays text, as do labels of residues (``0121``).

    Args:
        data_file: the file, optionally compressed.
        in_memory: accepted for TAPE's signature.
        options: format and columns of the file.
    """

    def __init__(
        self, data_file: str | os.PathLike[str], in_memory: bool = True, options: RecordOptions = RecordOptions()
    ) -> None:
        super().__init__(data_file, options)

    def _record(self, record: FileRecord, name: str) -> Record:
        cells = {
            column: value if column in _TEXT_COLUMNS or not isinstance(value, str) else _cell(value)
            for column, value in record.fields.items()
        }
        return {**cells, "id": name, "primary": record.residues}


def _cell(text: str) -> Any:
    """Parse the text of a table cell."""
    try:
        return parse_json(text)
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
    """Open a file of records with the class for its format.

    Args:
        data_file: .lmdb, .json, .jsonl, FASTA or any other file that :mod:`tape.io.records` reads, a pipe, ``-`` for
            the standard input, or a directory of .npz files.
        args, kwargs: ``in_memory``, and ``options`` (:class:`tape.io.records.RecordOptions`).

    Raises:
        DataError: the file is missing, or its format is unknown.
    """
    path = Path(data_file)
    if not is_stream(path) and not path.exists():
        raise DataError(f"{path}: no such file or directory")
    options: RecordOptions = kwargs.get("options", RecordOptions())
    name = format_of_suffix(path) if options.format is None else parse_format(options.format)[0]
    if name == "lmdb":
        return LMDBDataset(path, *args, **kwargs)
    if name in ("json", "jsonl"):
        return JSONDataset(path, *args, **kwargs)
    if path.is_dir():
        return NPZDataset(path, *args, **{name: value for name, value in kwargs.items() if name != "options"})
    return FastaDataset(path, *args, **kwargs)  # open_records distinguishes the remaining formats


def split_source(
    folder: str | os.PathLike[str], stem: str, in_memory: bool = False, options: RecordOptions = RecordOptions()
) -> RecordSource | None:
    """Open the labeled records of ``FOLDER/STEM``; None if there is no such file.

    The file is ``STEM.lmdb``, or ``STEM.json``, ``.jsonl``, ``.csv``, ``.tsv`` or FASTA (optionally compressed), or a
    directory ``STEM`` of .npz files.

    Raises:
        DataError: the split exists in two formats, or the file is damaged.
    """
    folder = Path(folder)
    names = [f"{stem}.lmdb", stem]
    names += [
        f"{stem}{suffix}{packed}" for suffix in LABELED_SUFFIXES if suffix != ".lmdb" for packed in ("", *COMPRESSIONS)
    ]
    found = [folder / name for name in names if (folder / name).exists()]
    if len(found) > 1:
        others = ", ".join(path.name for path in found[1:])
        raise DataError(f"{found[0]}: the same split exists as {others}; keep one of them")
    if not found:
        return None
    if format_of_suffix(found[0]) in ("lmdb", "json", "jsonl") or found[0].is_dir():
        return dataset_factory(found[0], in_memory=in_memory, options=options)
    return TableDataset(found[0], options=options)


def file_of(dataset: Any) -> Path | None:
    """The file or directory of records that a data set reads; None if it does not say."""
    path = getattr(getattr(dataset, "data", None), "path", None)
    return None if path is None else Path(path)


def dataset_provenance(dataset: Any) -> dict[str, Any]:
    """Read ``dataset.json`` in the folder of a data set's file: name, source and license of the data.

    Returns:
        At least ``name`` and ``simulated`` (None if there is no ``dataset.json``).

    Raises:
        DataError: ``dataset.json`` is damaged.
    """
    source = getattr(dataset, "data", None)
    path, provenance = getattr(source, "path", None), getattr(source, "provenance", None)
    if provenance is not None:
        return dict(provenance)
    if path is None:
        return {"name": type(dataset).__name__, "simulated": None}
    file = Path(path).parent / PROVENANCE_NAME
    if not file.is_file():
        return {"name": Path(path).parent.name, "simulated": None}
    described = {"name": Path(path).parent.name, "simulated": None, **read_json_object(file, DataError)}
    if not isinstance(described["name"], str) or not isinstance(described["simulated"], bool | None):
        raise DataError(
            f"{file}: name must be text, and simulated true or false, not {quoted(described['name'])} and"
            f" {quoted(described['simulated'])}"
        )
    return described
