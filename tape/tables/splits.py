"""The splits of a table: from a column, or drawn with a seed. Copies of a sequence are always in one split.

``splits.tsv`` in the directory of a run has the columns ``id``, ``split`` and ``sha256``, the digest of the normalized
sequence, by which an evaluation recognizes the proteins of the run in any table.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tape.errors import CheckpointError, DataError, listed, quoted
from tape.io.records import Record, open_rows
from tape.io.writing import write_text
from tape.similarity.splits import draw_splits
from tape.tokenizers import normalize_sequence

SPLITS_NAME = "splits.tsv"
SPLIT_COLUMN = "split"
NEW_PROTEINS, ALL_PROTEINS = "new", "all"  # splits of an evaluation
_SYNONYMS = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid", "testing": "test"}
_CARVED = 0.1  # of train, if a split column has no valid


def digest_of(sequence: str) -> str:
    """SHA-256 of a normalized sequence."""
    return hashlib.sha256(normalize_sequence(sequence, drop_gaps=False, drop_stop=False)[0].encode()).hexdigest()


def splits_of_column(records: Sequence[Record], digests: Sequence[str], column: str, seed: int) -> list[str]:
    """The splits in a column; without any ``valid``, a tenth of ``train`` is drawn for it.

    Names are those of the column, but ``validation``, ``val`` and ``dev`` are ``valid``, and ``training`` is ``train``.

    Raises:
        DataError: a cell is empty, there is no ``train``, or copies of a sequence have different splits.
    """
    splits = [_split_in(record, column) for record in records]
    if "train" not in splits:
        raise DataError(f"column {quoted(column)} has no split train, but {listed(sorted(set(splits)))}")
    if "valid" not in splits:
        train = [place for place, split in enumerate(splits) if split == "train"]
        drawn = draw_splits([digests[place] for place in train], (1 - _CARVED, _CARVED, 0), seed)
        for place, split in zip(train, drawn, strict=True):
            splits[place] = split
    _check_copies(records, digests, splits)
    return splits


def _split_in(record: Record, column: str) -> str:
    value = record.fields.get(column)
    name = value.strip().lower() if isinstance(value, str) else ""
    if not name:
        raise DataError(f"{record.where}: no split in column {quoted(column)}; the record has {listed(record.fields)}")
    return _SYNONYMS.get(name, name)


def _check_copies(records: Sequence[Record], digests: Sequence[str], splits: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for place, digest in enumerate(digests):
        other = first.setdefault(digest, place)
        if splits[other] != splits[place]:
            raise DataError(
                f"{records[place].where}: in split {splits[place]}, with the same sequence as {records[other].name} in"
                f" {splits[other]}; give copies one split, or remove all but one"
            )


def describe_splits(splits: Sequence[str]) -> str:
    """Numbers of proteins by split, in words."""
    return ", ".join(f"{name} {count}" for name, count in Counter(splits).items())


def write_splits(path: Path, identifiers: Sequence[str], digests: Sequence[str], splits: Sequence[str]) -> None:
    """Write ``splits.tsv``."""
    rows = [("id", "split", "sha256"), *zip(identifiers, splits, digests, strict=True)]
    write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def read_splits(path: Path) -> Mapping[str, str]:
    """The split of each digest in a ``splits.tsv``; empty if there is no such file.

    Raises:
        CheckpointError: it is damaged.
    """
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for row in open_rows(path):
        if not {"split", "sha256"} <= row.fields.keys():
            raise CheckpointError(f"{row.where}: not the splits of a run: no column split or sha256")
        found[row.fields["sha256"]] = row.fields["split"]
    return found
