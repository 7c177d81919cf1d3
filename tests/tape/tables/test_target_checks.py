"""Columns that are no target: the sequence, the id, and classes of which each has a single protein."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tape.errors import ConfigError, DataError
from tape.io.records import RecordOptions
from tape.tables.options import TableOptions
from tape.tables.table import Table, table_for_training

SEQUENCES = [f"MK{'ACDEFGHIKLMNPQRSTVWY'[i]}" for i in range(20)]


def read(folder: Path, column: Sequence[object], target: str = "y", kind: str | None = None) -> Table:
    """A table of 20 proteins with ids, sequences and the target ``y``."""
    lines = [f"{i},{sequence},{value}" for i, (sequence, value) in enumerate(zip(SEQUENCES, column, strict=True))]
    path = folder / "my.csv"
    path.write_text("\n".join(["id,sequence,y", *lines]) + "\n", encoding="utf-8")
    return table_for_training(TableOptions(path, target, kind=kind))


@pytest.mark.parametrize("kind", [None, "regression", "classification"])
def test_sequence_and_id_are_no_targets(kind: str | None, tmp_path: Path) -> None:
    other = ["a", "b"] * 10
    with pytest.raises(ConfigError, match="--target 'sequence' is the sequence.*choose another column"):
        read(tmp_path, other, "sequence", kind=kind)
    with pytest.raises(ConfigError, match="--target 'id' is the id in all 20 records"):
        read(tmp_path, other, "id", kind=kind)
    with pytest.raises(ConfigError, match="--target 'y' is the sequence in all 20 records"):
        read(tmp_path, SEQUENCES, kind=kind)
    with pytest.raises(ConfigError, match="--target 'y' is the id in all 20 records"):
        read(tmp_path, list(range(20)), kind=kind)


def test_the_sequence_is_the_column_that_options_name(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    lines = [f"{sequence},{'ab'[i % 2]}" for i, sequence in enumerate(SEQUENCES)]
    path.write_text("\n".join(["chain,sequence", *lines]) + "\n", encoding="utf-8")
    records = RecordOptions(sequence_column="chain")
    with pytest.raises(ConfigError, match="--target 'chain' is the sequence"):
        table_for_training(TableOptions(path, "chain", records=records))
    assert table_for_training(TableOptions(path, "sequence", records=records)).target.classes == ("a", "b")


def test_classes_of_one_protein_each_are_refused(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(20)]
    with pytest.raises(DataError, match=r"20 classes in 20 proteins, each in a single protein \(n0, .*regression"):
        read(tmp_path, names, kind="classification")
    with pytest.raises(DataError, match="40 labels in 20 proteins, each in a single protein"):
        read(tmp_path, [f"{name};x{name}" for name in names], kind="multilabel")
    numbers = [*range(1000, 1012), *[""] * 8]  # few enough to be taken for classes
    with pytest.raises(DataError, match="12 classes in 12 proteins, each in a single protein"):
        read(tmp_path, numbers)


def test_many_classes_of_one_protein_are_announced(tmp_path: Path) -> None:
    names = [*(f"n{i}" for i in range(9)), *["a"] * 6, *["b"] * 5]
    table = read(tmp_path, names, kind="classification")
    (notice,) = [line for line in table.notices if "single protein" in line]
    assert "9 of 11 classes of y have a single protein of 20 (n0, n1, n2 ...)" in notice
    usual = read(tmp_path, ["n", *["a"] * 10, *["b"] * 9], kind="classification")
    assert not any("single protein" in line for line in usual.notices)
