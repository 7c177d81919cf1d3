"""Chains with coordinates: exact round trip, and files that do not match."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from proteinlm.data.structure_files import Chain, coordinate_file, read_chains, write_chains
from tape.errors import DataError

RNG = np.random.default_rng(0)


def chain(name: str, length: int) -> Chain:
    steps = RNG.normal(0, 2, (length, 3))
    tertiary = (np.rint(np.cumsum(steps, axis=0) * 10) / 10 + 55).astype(np.float32)
    return Chain(name, "ACDEFGHIKL"[:1] * length, "H" * length, tertiary)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "pdb_train.tsv.xz"
    write_chains(path, [chain("1ABC_A", 7), chain("2DEF_B", 40)])
    return path


def distances(tertiary: np.ndarray) -> np.ndarray:
    return np.linalg.norm(tertiary[:, None] - tertiary[None], axis=-1)


def test_coordinates_survive_a_round_trip(tmp_path: Path) -> None:
    chains = [chain("1ABC_A", 7), chain("2DEF_B", 40)]
    path = tmp_path / "pdb_valid.tsv.xz"
    write_chains(path, chains)
    for old, new in zip(chains, read_chains(path), strict=True):
        assert (old.identifier, old.primary, old.ss8) == (new.identifier, new.primary, new.ss8)
        np.testing.assert_allclose(distances(old.tertiary), distances(new.tertiary), atol=1e-4)
        assert new.tertiary.dtype == np.float32


def test_a_wrong_number_of_coordinates_is_refused(table: Path) -> None:
    path = coordinate_file(table)
    planes = np.frombuffer(lzma.decompress(path.read_bytes()), dtype="<i2").reshape(3, -1)
    path.write_bytes(lzma.compress(planes[:, :-1].tobytes()))
    with pytest.raises(DataError, match="record 2: .* ends before"):
        list(read_chains(table))
    path.write_bytes(lzma.compress(np.hstack([planes, planes]).tobytes()))
    with pytest.raises(DataError, match="coordinates of 94 residues, but .* has 47"):
        list(read_chains(table))
    path.write_bytes(lzma.compress(b"1234"))
    with pytest.raises(DataError, match="4 bytes are not three planes"):
        list(read_chains(table))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"ca\.i2\.xz: truncated"):
        list(read_chains(table))
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        list(read_chains(table))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x\tACD\tHH", "3 residues but 2 DSSP letters"),
        ("x\tACD\tHHQ", "DSSP letter 'Q'; allowed are GHIBESTC"),
    ],
)
def test_bad_rows_are_named(table: Path, row: str, message: str) -> None:
    table.write_bytes(lzma.compress(f"id\tprimary\tss8\n{row}\n".encode()))
    with pytest.raises(DataError, match=rf"pdb_train\.tsv\.xz, record 1: {message}"):
        list(read_chains(table))


def test_a_missing_column_is_named(table: Path) -> None:
    table.write_bytes(lzma.compress(b"id\tprimary\nx\tACD\n"))
    with pytest.raises(DataError, match="missing column ss8; the columns are id, primary"):
        list(read_chains(table))


def test_real_chains_have_peptide_geometry(shared_data: Path) -> None:
    first = next(read_chains(shared_data / "structures" / "pdb_test.tsv.xz"))
    steps = np.linalg.norm(np.diff(first.tertiary, axis=0), axis=1)
    assert np.median(steps) == pytest.approx(3.8, abs=0.1)
