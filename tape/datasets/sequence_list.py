"""Proteins that are given in Python: the residues of one or several, by id, as a table, or as a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import ConfigError, DataError, listed, quoted
from tape.io.records import RecordOptions, Row, id_columns, sequence_columns
from tape.io.records.record import SEQUENCE_COLUMNS, identifier_of
from tape.tokenizers import TAPETokenizer

from .embedding import EmbedDataset
from .index import log_replaced_characters
from .sources import Record, RecordSource

_FORMS = "text, a list of texts, a dictionary from ids to texts, a pandas DataFrame, or the path of a file"


class SequenceList(RecordSource):
    """Proteins in memory, with ``id``, ``primary`` and ``protein_length``.

    Args:
        sequences: the residues of N proteins.
        identifiers: their N ids.
    """

    path = Path("the proteins")

    def __init__(self, sequences: Sequence[Any], identifiers: Sequence[str]) -> None:
        self._records = list(zip(identifiers, sequences, strict=True))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        identifier, sequence = self._records[index]
        return {"id": identifier, "primary": sequence}

    def where(self, index: int, record: Record | None = None) -> str:
        """The number of a protein from 1, and its id unless that is its number from 0, for error messages."""
        identifier = self._records[index][0]
        return f"protein {index + 1}" + ("" if identifier == str(index) else f" ({identifier})")


@dataclass(frozen=True)
class GivenProteins:
    """Proteins as a data set, and the form in which they were given.

    Attributes:
        dataset: the proteins.
        name: what they are, for messages: the file, or "the proteins".
        form: ``one``, ``list`` or ``named``.
    """

    dataset: EmbedDataset
    name: str
    form: str

    def arrange(self, found: Mapping[int, Any]) -> Any:
        """Results by number of the protein in the form of the proteins: one, a list, or a dictionary from ids.

        Raises:
            DataError: two proteins have the same id.
        """
        ordered = [found[index] for index in range(len(self.dataset))]
        if self.form == "one":
            return ordered[0]
        if self.form == "list":
            return ordered
        named: dict[str, Any] = {}
        for identifier, result in zip(self.dataset.build_index().identifiers, ordered, strict=True):
            if identifier in named:
                raise DataError(f"{self.name}: two proteins with the id {quoted(identifier)}; give them as a list")
            named[identifier] = result
        return named


def given_proteins(proteins: Any, tokenizer: TAPETokenizer) -> GivenProteins:
    """Proteins that are given in Python, with all sequences checked.

    Args:
        proteins: the residues of a protein as text; an iterable of texts; a dictionary from ids to texts; a pandas
            DataFrame with a column of sequences (``sequence``, ``primary`` or ``text``) and perhaps ``id``; or a file:
            a path, or text with a dot or slash, which no sequence has.
        tokenizer: the vocabulary.

    Raises:
        ConfigError: there is no protein, or they are given in another form.
        DataError: a sequence or the file can't be used. Names the protein.
    """
    source, name, form = _source(proteins)
    dataset = EmbedDataset(source, tokenizer)
    log_replaced_characters(dataset, name)
    return GivenProteins(dataset, name, form)


def _source(proteins: Any) -> tuple[str | RecordSource, str, str]:
    if isinstance(proteins, os.PathLike) or (isinstance(proteins, str) and {".", "/"} & set(proteins)):
        return os.fspath(proteins), os.fspath(proteins), "named"
    if isinstance(proteins, str):
        return SequenceList([proteins], ["0"]), "the protein", "one"
    if hasattr(proteins, "columns"):
        identifiers, sequences = _columns(proteins)
        form = "named"
    elif isinstance(proteins, Mapping):
        identifiers, sequences, form = list(map(str, proteins)), list(proteins.values()), "named"
    elif isinstance(proteins, Iterable) and not isinstance(proteins, bytes):
        sequences = list(proteins)
        identifiers, form = [str(number) for number in range(len(sequences))], "list"
    else:
        raise ConfigError(f"proteins are {_FORMS}, not {type(proteins).__name__}")
    if not sequences:
        raise ConfigError("there are no proteins")
    return SequenceList(sequences, identifiers), "the proteins", form


def _columns(table: Any) -> tuple[list[str], list[Any]]:
    """Ids and sequences of a DataFrame; without a column of ids, the labels of its index.

    Raises:
        DataError: no column, or more than one, may be the sequences.
    """
    fields = {str(column): table[column].tolist() for column in table.columns}
    present = sequence_columns(fields)
    if not present:
        names = " or ".join(SEQUENCE_COLUMNS)
        raise DataError(f"the DataFrame has no column of sequences: it has {listed(fields)}; rename one to {names}")
    if len(present) > 1:
        shown = " and ".join(present)
        raise DataError(f"the DataFrame: {shown} may both be the sequences; give one of them, as a Series")
    of_ids = id_columns(fields)
    rows = zip(*(fields[name] for name in of_ids), strict=True) if of_ids else ((),) * len(table)
    identifiers = [
        _identifier(dict(zip(of_ids, row, strict=True)), label) for row, label in zip(rows, table.index, strict=True)
    ]
    return identifiers, fields[present[0]]


def _identifier(fields: Mapping[str, Any], label: object) -> str:
    """The id of a row, as that of a record in a file; without one, its label in the index."""
    known = {name: None if value is None or value != value else value for name, value in fields.items()}
    found = identifier_of(Row(known, f"the DataFrame, row {label}"), RecordOptions())
    return str(label) if found is None else found
