"""Reading the proteins that are compared, normalized in the same way on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tape.errors import ConfigError, DataError, UnknownResidueError
from tape.io.records import Record, RecordOptions, names_of, open_records
from tape.io.records.formats import format_of_suffix, has_columns
from tape.io.text_files import display_name
from tape.tokenizers import normalize_sequence

_CORPUS_SUFFIXES = (".bin", ".idx")


@dataclass(frozen=True)
class Protein:
    """A protein: id and normalized residues."""

    identifier: str
    residues: str


def sequence_digest(residues: str) -> str:
    """The first 16 hex digits of the SHA-256 of normalized residues, by which tables of leakage name a sequence."""
    return hashlib.sha256(residues.encode("ascii")).hexdigest()[:16]


def read_test_proteins(path: Path, options: RecordOptions) -> tuple[list[Protein], str]:
    """The proteins of a file in its order, and the SHA-256 of the file.

    Raises:
        DataError: the file can't be read, is empty, or has a record that is no protein. Names file and record.
    """
    _check_format(path)
    digest = hashlib.sha256()
    records = list(open_records(path, options, digest=digest))
    if not records:
        raise DataError(f"{display_name(path)}: contains no record")
    names = names_of(record.identifier for record in records)
    proteins = [Protein(name, _residues(record)) for name, record in zip(names, records, strict=True)]
    return proteins, digest.hexdigest()


class ReferenceFile:
    """A file of proteins that a model was trained on; read once, one protein at a time.

    Args:
        path: the file.
        options: columns of tables.

    Attributes:
        proteins: number of proteins read so far.
    """

    def __init__(self, path: Path, options: RecordOptions = RecordOptions()) -> None:
        _check_format(path)
        self.path, self.proteins = path, 0
        self._options = replace(options, format=None) if has_columns(path) else RecordOptions()
        self._digest = hashlib.sha256()

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes read so far."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Protein]:
        for record in open_records(self.path, self._options, digest=self._digest):
            self.proteins += 1
            yield Protein(record.name, _residues(record))
        if not self.proteins:
            raise DataError(f"{self.path}: contains no record")


def _residues(record: Record) -> str:
    try:
        residues, _ = normalize_sequence(record.residues, drop_gaps=True)
    except UnknownResidueError as error:
        raise UnknownResidueError(f"{record.where}: {error}") from None
    if not residues:
        raise DataError(f"{record.where}: empty record: it has gaps and stops, and no residues; remove it")
    return residues


def _check_format(path: Path) -> None:
    if path.suffix in _CORPUS_SUFFIXES:
        raise ConfigError(
            f"{path}: a preprocessed corpus has tokens and no ids; give the file that it was made from, which the .json"
            " file beside it names"
        )
    if path.is_dir() and format_of_suffix(path) != "lmdb":
        raise ConfigError(f"{path}: a directory; give a file of proteins, such as FASTA")
