"""Protein chains with DSSP states and C-alpha coordinates: ``NAME_SPLIT.tsv.xz`` and ``NAME_SPLIT.ca.i2.xz``.

The table has the columns ``id``, ``primary`` and ``ss8`` (one DSSP letter per residue). The coordinates are
little-endian int16 in three planes (all x, then all y, then all z) over all residues of the table in its order; within
a chain each value is the difference from the previous residue (the first is absolute), in 0.1 Angstrom. All residues
are resolved.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tape.errors import DataError, listed
from tape.io.records import open_rows
from tape.io.records.labels import SS8_LETTERS
from tape.io.text_files import ReadCallback, open_bytes
from tape.io.writing import atomic_write

ANGSTROM_PER_UNIT = 0.1
_XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}]


@dataclass(frozen=True)
class Chain:
    """One chain: ``primary`` and ``ss8`` of equal length L, ``tertiary`` float32 (L, 3) in Angstrom."""

    identifier: str
    primary: str
    ss8: str
    tertiary: np.ndarray
    where: str = ""


def coordinate_file(table: Path) -> Path:
    """Path of the coordinates of ``table``."""
    return table.with_name(table.name.split(".tsv")[0] + ".ca.i2.xz")


def read_chains(table: Path, progress: ReadCallback | None = None) -> Iterator[Chain]:
    """Read the chains of one split. All coordinates are decompressed into memory (6 bytes per residue).

    Raises:
        DataError: a file is missing or damaged, or the two files do not match.
    """
    path = coordinate_file(table)
    with open_bytes(path) as stream:
        data = stream.read()
    if len(data) % 6:
        raise DataError(f"{path}: {len(data)} bytes are not three planes of int16")
    planes = np.frombuffer(data, dtype="<i2").reshape(3, -1)
    start = 0
    for row in open_rows(table, progress=progress):
        chain = _chain(row.fields, planes[:, start:], row.where, path)
        start += len(chain.primary)
        yield chain
    if start != planes.shape[1]:
        raise DataError(f"{path}: coordinates of {planes.shape[1]} residues, but {table} has {start}")


def _chain(fields: Mapping[str, str], planes: np.ndarray, where: str, path: Path) -> Chain:
    missing = [name for name in ("id", "primary", "ss8") if name not in fields]
    if missing:
        raise DataError(f"{where}: missing column {', '.join(missing)}; the columns are {listed(fields)}")
    primary, ss8 = fields["primary"], fields["ss8"]
    if len(primary) != len(ss8) or not primary:
        raise DataError(f"{where}: {len(primary)} residues but {len(ss8)} DSSP letters")
    if set(ss8) - set(SS8_LETTERS):
        raise DataError(f"{where}: DSSP letter {min(set(ss8) - set(SS8_LETTERS))!r}; allowed are {SS8_LETTERS}")
    if planes.shape[1] < len(primary):
        raise DataError(f"{where}: {path} ends before this chain's coordinates")
    units = np.cumsum(planes[:, : len(primary)], axis=1, dtype=np.int64)
    return Chain(fields["id"], primary, ss8, (units.T * ANGSTROM_PER_UNIT).astype(np.float32), where)


def write_chains(table: Path, chains: Sequence[Chain]) -> None:
    """Write chains to ``table`` (``.../NAME_SPLIT.tsv.xz``) and their coordinates next to it."""
    lines = ["id\tprimary\tss8", *("\t".join((chain.identifier, chain.primary, chain.ss8)) for chain in chains)]
    with atomic_write(table) as stream:
        stream.write(_compress("\n".join(lines).encode() + b"\n"))
    steps = [_steps(chain.tertiary) for chain in chains]
    with atomic_write(coordinate_file(table)) as stream:
        stream.write(_compress(np.concatenate(steps).T.astype("<i2").tobytes()))


def _steps(tertiary: np.ndarray) -> np.ndarray:
    """Differences along a chain, int64 (L, 3) in 0.1 Angstrom, after centering the chain to keep all values small."""
    units = np.rint(tertiary.astype(np.float64) / ANGSTROM_PER_UNIT).astype(np.int64)
    units -= np.rint(units.mean(axis=0)).astype(np.int64)
    return np.diff(units, axis=0, prepend=np.zeros((1, 3), dtype=np.int64))


def _compress(data: bytes) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_XZ, filters=_XZ_FILTERS)
