"""Tables of tape-leakage with given identities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tape.io.records import RecordOptions
from tape.leakage.hits import Hit
from tape.leakage.proteins import read_test_proteins
from tape.leakage.table import LeakageHead, ProteinFile, write_table


def write_leakage(split_file: Path, path: Path, identities: Sequence[float | None]) -> Path:
    """A table for the first proteins of a split."""
    proteins, sha256 = read_test_proteins(split_file, RecordOptions())
    hits = [None if identity is None else Hit("x", identity, 100.0) for identity in identities]
    head = LeakageHead({"sha256": sha256}, (ProteinFile("train.lmdb", "train.lmdb", "ab", 10),), {"tool": "MMseqs2"})
    write_table(path, head, proteins[: len(hits)], [hits])
    return path
