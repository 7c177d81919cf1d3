"""Formats of files of proteins, and how the format of a file is determined."""

from __future__ import annotations

import os
from typing import Any

from tape.errors import DataError
from tape.io.text_files import COMPRESSIONS, display_name, is_stream, split_suffix

# Name of the format -> suffixes
FORMATS: dict[str, tuple[str, ...]] = {
    "fasta": (".fasta", ".fa", ".fas", ".faa", ".fsa", ".pep", ".aa", ".mpfa", ".fna", ".ffn", ".frn"),
    "a3m": (".a3m",),
    "stockholm": (".sto", ".stk", ".stockholm"),
    "jsonl": (".jsonl",),
    "json": (".json",),
    "csv": (".csv",),
    "tsv": (".tsv",),
    "parquet": (".parquet",),
    "text": (".txt", ".tab"),
    "lmdb": (".lmdb",),
}
NUCLEOTIDE_SUFFIXES = (".fna", ".ffn", ".frn")
# Formats whose records can have labels beside the sequence.
LABELED_FORMATS = ("fasta", "jsonl", "json", "csv", "tsv", "parquet", "lmdb")
_FORMAT_OF = {suffix: name for name, suffixes in FORMATS.items() for suffix in suffixes}
SEQUENCE_SUFFIXES = tuple(_FORMAT_OF)
LABELED_SUFFIXES = tuple(suffix for suffix, name in _FORMAT_OF.items() if name in LABELED_FORMATS)


def format_of_suffix(path: str | os.PathLike[str]) -> str | None:
    """Name of the format that the suffix of ``path`` stands for; None if it stands for none."""
    return _FORMAT_OF.get(split_suffix(path)[0])


def has_columns(path: str | os.PathLike[str], chosen: str | None = None) -> bool:
    """Whether the records of a file have columns with names, unlike those of FASTA and alignments.

    Args:
        path: the file.
        chosen: value of ``--format``; None: the format is that of the suffix.
    """
    name = format_of_suffix(path) if chosen is None else parse_format(chosen)[0]
    return name in LABELED_FORMATS and name != "fasta"


def is_sequence_file(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` has a suffix that :func:`tape.io.records.open_records` can read."""
    return format_of_suffix(path) is not None


def parse_format(text: str) -> tuple[str, str]:
    """Format and compression of a value of ``--format``, such as ``fasta`` or ``csv.gz``.

    Raises:
        DataError: there is no such format.
    """
    given = f".{text.strip().lower().removeprefix('.')}"
    compression = next((suffix for suffix in COMPRESSIONS if given.endswith(suffix)), "")
    name = given.removesuffix(compression)
    name = _FORMAT_OF.get(name, name.removeprefix("."))
    if name not in FORMATS:
        raise DataError(
            f"--format {text}: no such format; there are {', '.join(FORMATS)} (or with {_packed()} after it)"
        )
    return name, compression


def list_suffixes(suffixes: tuple[str, ...]) -> str:
    """Suffixes in words, for messages."""
    return f"{' '.join(suffixes)} (or with {_packed()} after it)"


def _packed() -> str:
    return " ".join(COMPRESSIONS)


def format_of_content(path: str | os.PathLike[str], stream: Any) -> str:
    """Format of an open file whose suffix does not determine it: a .txt file, one without a suffix, or a stream.

    A file whose first character is ``>`` is FASTA.

    Args:
        path: the file.
        stream: the file, opened with :func:`tape.io.text_files.open_bytes`; nothing is taken from it.

    Raises:
        DataError: the format can't be determined. Names ``--format``.
    """
    start = stream.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b">", b"\xff\xfe>\x00", b"\xfe\xff\x00>")):
        return "fasta"
    found = format_of_suffix(path)
    if found is not None:
        return found
    suffix = split_suffix(path)[0]
    if is_stream(path):
        raise DataError(f"{display_name(path)}: its format is unknown; give --format with one of {', '.join(FORMATS)}")
    raise DataError(
        f"{display_name(path)}: {'unknown' if suffix else 'no'} suffix; allowed are {list_suffixes(SEQUENCE_SUFFIXES)};"
        " rename the file, or give --format in commands that have it"
    )
