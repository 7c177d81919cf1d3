"""The table of ``tape-leakage``: for each test protein and each file, the hit of the highest identity.

Schema "proteinlm-leakage", version 1, in UTF-8::

    # {"schema": "proteinlm-leakage", "version": 1, ...}    one line of JSON: where the numbers come from
    id <TAB> length <TAB> sequence_sha256 <TAB> reference <TAB> hit <TAB> identity <TAB> coverage
    ...                                                      a line per reference and test protein

    test               {path, sha256, proteins}: the file of the test proteins
    references         [{name, path, sha256, proteins}]: the files that they are compared with
    search             {tool, tool_version, e_value, coverage ...}: which alignments count, and how they are found
    code_version, date of this package; UTC, ISO 8601

``sequence_sha256`` has the first 16 hex digits of the SHA-256 of the residues, by which ``tape-eval`` finds a protein.
Identity and coverage are in percent; both, and ``hit``, are empty without a hit. Other programs read the table with
``#`` as the beginning of a comment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import DataError, quoted
from tape.io.checksums import sha256_of
from tape.io.json_files import parse_json
from tape.io.text_files import LONGEST_LINE, decode, open_bytes
from tape.io.timestamps import utc_now
from tape.io.writing import atomic_write, remove_leftovers
from tape.version import __version__

from .hits import Hit
from .proteins import Protein, sequence_digest

SCHEMA = "proteinlm-leakage"
SCHEMA_VERSION = 1
COLUMNS = ("id", "length", "sequence_sha256", "reference", "hit", "identity", "coverage")
_HEAD = {"test": dict, "references": list, "search": dict, "code_version": str, "date": str}
_REFERENCE = {"name": str, "path": str, "sha256": str, "proteins": int}


@dataclass(frozen=True)
class ProteinFile:
    """A file of proteins: its name, path, SHA-256 and number of proteins."""

    name: str
    path: str
    sha256: str
    proteins: int


@dataclass(frozen=True)
class LeakageHead:
    """The first line of a table; the module's docstring explains the fields."""

    test: Mapping[str, Any]
    references: tuple[ProteinFile, ...]
    search: Mapping[str, Any]
    code_version: str = __version__
    date: str = field(default_factory=utc_now)


@dataclass(frozen=True)
class LeakageTable:
    """A table that was read.

    Attributes:
        path: the file.
        sha256: SHA-256 of the file.
        head: where the numbers come from.
        identities: reference -> digest of a sequence -> identity in percent; nan without a hit.
    """

    path: Path
    sha256: str
    head: LeakageHead
    identities: Mapping[str, Mapping[str, float]]

    def identities_of(self, reference: str, digests: Sequence[str]) -> np.ndarray:
        """(N,) identity of each protein in percent; nan without a hit.

        Args:
            reference: name of one of the references.
            digests: N digests of sequences; see :func:`.proteins.sequence_digest`.

        Raises:
            DataError: a protein is not in the table.
        """
        known = self.identities[reference]
        missing = next((place for place, digest in enumerate(digests) if digest not in known), None)
        if missing is not None:
            count = sum(digest not in known for digest in digests)
            raise DataError(
                f"{self.path}: has no sequence like that of protein {missing} (from 0); it lacks {count:,} of"
                f" {len(digests):,} proteins, so it was made for other data: run tape-leakage again"
            )
        return np.asarray([known[digest] for digest in digests], dtype=np.float64)


def write_table(
    path: Path, head: LeakageHead, proteins: Sequence[Protein], hits: Sequence[Sequence[Hit | None]]
) -> None:
    """Write a table atomically.

    Args:
        path: the file; an earlier one is replaced.
        head: where the numbers come from.
        proteins: N test proteins.
        hits: N hits for each reference of ``head``.
    """
    remove_leftovers(path.parent, path.name)
    with atomic_write(path, "w") as stream:
        content = {"schema": SCHEMA, "version": SCHEMA_VERSION, **asdict(head)}
        stream.write(f"# {json.dumps(content, ensure_ascii=False)}\n" + "\t".join(COLUMNS) + "\n")
        for reference, found in zip(head.references, hits, strict=True):
            for protein, hit in zip(proteins, found, strict=True):
                numbers = (
                    ("", "", "") if hit is None else (hit.identifier, f"{hit.identity:.4f}", f"{hit.coverage:.1f}")
                )
                cells = (protein.identifier, str(len(protein.residues)), sequence_digest(protein.residues))
                stream.write("\t".join((*cells, reference.name, *numbers)) + "\n")


def is_table(path: Path) -> bool:
    """Whether a file begins as a table of ``tape-leakage`` does."""
    with path.open("rb") as stream:
        start = stream.read(200)
    return start.startswith(b"# {") and SCHEMA.encode() in start


def read_table(path: Path) -> LeakageTable:
    """Read and check a table.

    Raises:
        DataError: it can't be read, is of another schema or version, or a line is not as described. Names the line.
    """
    with open_bytes(path) as source:
        lines = [line.rstrip("\r\n") for line in decode(source, path, LONGEST_LINE)]
    head = _read_head(path, lines[0] if lines else "")
    if len(lines) < 2 or tuple(lines[1].split("\t")) != COLUMNS:
        raise DataError(f"{path}, line 2: expected the columns {' '.join(COLUMNS)}")
    identities: dict[str, dict[str, float]] = {reference.name: {} for reference in head.references}
    for number, line in enumerate(lines[2:], start=3):
        cells = line.split("\t")
        where = f"{path}, line {number}"
        if len(cells) != len(COLUMNS):
            raise DataError(f"{where}: has {len(cells)} columns, not {len(COLUMNS)}")
        if cells[3] not in identities:
            raise DataError(f"{where}: {quoted(cells[3])} is not one of the references of the first line")
        identities[cells[3]][cells[2]] = _identity(cells[5], where)
    return LeakageTable(path, sha256_of(path), head, identities)


def _identity(text: str, where: str) -> float:
    if not text:
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise DataError(f"{where}: identity must be a number from 0 to 100, or empty, not {quoted(text)}")
    return value


def _read_head(path: Path, line: str) -> LeakageHead:
    try:
        content = parse_json(line.removeprefix("# ")) if line.startswith("# {") else None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line 1: not valid JSON ({error})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if content is None or schema != SCHEMA:
        raise DataError(f"{path}: not a table of tape-leakage: its first line has no schema {SCHEMA!r}")
    if content.get("version") != SCHEMA_VERSION:
        raise DataError(
            f"{path}: version {quoted(content.get('version'))} of {SCHEMA}; this program reads {SCHEMA_VERSION}"
        )
    fields = _checked(content, _HEAD, f"{path}, line 1: ")
    entries = fields["references"]
    references = [
        ProteinFile(**_checked(entry, _REFERENCE, f"{path}, line 1: references[{place}]: "))
        for place, entry in enumerate(entries)
    ]
    if not references:
        raise DataError(f"{path}, line 1: references is empty")
    return LeakageHead(**{**fields, "references": tuple(references)})


def _checked(content: Any, types: Mapping[str, type], where: str) -> dict[str, Any]:
    """The known fields of an object, after a check of their types."""
    if not isinstance(content, dict):
        raise DataError(f"{where}a {type(content).__name__}, not an object")
    for name, kind in types.items():
        if not isinstance(content.get(name), kind) or isinstance(content[name], bool):
            raise DataError(f"{where}{name} must be {kind.__name__}, not {quoted(content.get(name))}")
    return {name: content[name] for name in types}
