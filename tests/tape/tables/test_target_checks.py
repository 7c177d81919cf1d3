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


@pytest.mark.parametrize(
    ("column", "kind", "notice"),
    [
        (["a", "b", "NA", "None"] * 5, None, "classes of y: NA, None; empty these cells if their labels are missing"),
        (["0", "1", "-", "1"] * 5, None, "classes of y: -; empty these cells"),
        (["a;nan", "b"] * 10, "multilabel", "classes of y: nan; empty these cells"),
        (["Yes", "yes", "no", "no"] * 5, None, "different classes of y: Yes, yes; write them alike if they are one"),
        (["\u00e9", "e\u0301"] * 10, None, "different classes of y: e\u0301, \u00e9; write them alike"),
        (["1", "01", "2", "2"] * 5, None, "different classes of y: 01, 1; write them alike"),
        (["a;b", "a", "b", "b"] * 5, None, "single classes of y: a;b; give --task-type multilabel"),
    ],
)
def test_classes_that_are_a_mistake_as_a_rule_are_announced(
    column: list[str], kind: str | None, notice: str, tmp_path: Path
) -> None:
    assert [line for line in read(tmp_path, column, kind=kind).notices if line.startswith(notice)]


def test_nothing_is_announced_of_plain_classes(tmp_path: Path) -> None:
    notices = read(tmp_path, ["a", "b"] * 10).notices
    assert not [line for line in notices if "classes of y" in line or "sequence" in line]


def test_copies_with_other_labels_and_words_for_missing_sequences_are_announced(tmp_path: Path) -> None:
    sequences = [*SEQUENCES, SEQUENCES[0].lower(), SEQUENCES[1], "nan"]
    values = [*range(20), 0.5, 1, 7]
    path = tmp_path / "my.csv"
    rows = [f"{sequence},{value}" for sequence, value in zip(sequences, values, strict=True)]
    path.write_text("\n".join(["sequence,y", *rows]) + "\n", encoding="utf-8")
    notices = table_for_training(TableOptions(path, "y", kind="regression")).notices
    assert "1 of 21 sequences have several rows with different y, for which a model predicts the same" in notices
    (line,) = [line for line in notices if "word for a missing cell" in line]
    assert "the sequence of 1 of 23 proteins" in line
    assert "'nan'" in line
    assert "record 23" in line


@pytest.mark.parametrize("other", ["inf", "1e400", "#N/A", "n.d.", "50.0 C", "> 5"])
def test_a_text_among_numbers_is_named_instead_of_making_each_number_a_class(other: str, tmp_path: Path) -> None:
    column = [f"{50 + place % 5}.5" for place in range(20)]
    column[6] = other
    with pytest.raises(DataError, match=r"record 7 .*column 'y' has .*, while 19 of 20 cells are finite numbers"):
        read(tmp_path, column)
    if other in ("#N/A", "n.d."):
        assert len(read(tmp_path, column, kind="classification").target.classes) == 6
    column[6] = ""
    assert read(tmp_path, column).target.kind == "regression"


@pytest.mark.parametrize("digits", ["\u00b2", "\u0661", "--5", "+-5", "9" * 5000])
def test_what_looks_like_digits_is_no_integer(digits: str, tmp_path: Path) -> None:
    """Python's ``isdigit`` accepts superscripts, and ``int`` refuses thousands of digits."""
    classes = read(tmp_path, [digits, "1"] * 10, kind="classification").target.classes
    assert sorted(classes) == sorted([digits, "1"])


def test_classes_of_the_same_number_have_one_order_in_every_process(tmp_path: Path) -> None:
    names = ["1", "01", "+1", "001", "0001"]
    assert read(tmp_path, names * 4, kind="classification").target.classes == tuple(sorted(names))


def test_a_target_without_any_value_in_a_split_is_announced(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    splits = [("train", "train", "train", "valid")[place % 4] for place in range(20)]
    rows = [
        f"{sequence},{place}.5,{'' if split == 'valid' else place + 0.25},{split}"
        for place, (sequence, split) in enumerate(zip(SEQUENCES, splits, strict=True))
    ]
    path.write_text("\n".join(["sequence,y,z,split", *rows]) + "\n", encoding="utf-8")
    table = table_for_training(TableOptions(path, ("y", "z")))
    assert "no protein of split valid has z, so the best epoch is chosen without it" in table.notices
    assert not [line for line in table.notices if "has y" in line]


def test_a_validation_split_that_is_drawn_is_announced(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    rows = [f"{sequence},{place}.5,train" for place, sequence in enumerate(SEQUENCES)]
    path.write_text("\n".join(["sequence,y,split", *rows]) + "\n", encoding="utf-8")
    notices = table_for_training(TableOptions(path, "y", seed=3)).notices
    assert "column split: no split valid, so a tenth of train was drawn with seed 3; add one to choose it" in notices


def test_ids_of_several_sequences_are_announced(tmp_path: Path) -> None:
    """Repeated measurements share id and sequence; the same id with other residues is most likely a mistake."""
    path = tmp_path / "my.csv"
    rows = [f"p{place},{sequence},{place}.5" for place, sequence in enumerate(SEQUENCES)]

    def notices() -> list[str]:
        path.write_text("\n".join(["id,sequence,y", *rows]) + "\n", encoding="utf-8")
        return [line for line in table_for_training(TableOptions(path, "y")).notices if " ids belong to " in line]

    rows.append(f"p3,{SEQUENCES[3]},7.5")
    assert notices() == []
    rows.append(f"p3,{SEQUENCES[4]},8.5")
    (line,) = notices()
    assert line.startswith(f"1 of 20 ids belong to several sequences, such as 'p3' ({path}, record 4 (p3), and ")
    assert "record 22 (p3))" in line


def test_missing_values_of_a_copy_are_no_conflict(tmp_path: Path) -> None:
    rows = [f"{sequence},{value}" for i, sequence in enumerate(SEQUENCES) for value in (f"{i}.5,", f",{i + 1}.5")]
    path = tmp_path / "my.csv"
    for further, expected in ([], 0), ([f"{SEQUENCES[0]},,7.5"], 1):
        path.write_text("\n".join(["sequence,a,b", *rows, *further]) + "\n", encoding="utf-8")
        notices = table_for_training(TableOptions(path, ("a", "b"))).notices
        assert sum("several rows" in notice for notice in notices) == expected


def test_unlabeled_residues_of_a_copy_are_no_conflict(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    copies = [(SEQUENCES[0], "HHH"), (SEQUENCES[0], "HH-")]
    for further, expected in ([], 0), ([(SEQUENCES[0], "HHC")], 1):
        rows = [*((sequence, "HCH") for sequence in SEQUENCES[1:]), *copies, *further]
        path.write_text("\n".join(["sequence,y", *map(",".join, rows)]) + "\n", encoding="utf-8")
        notices = table_for_training(TableOptions(path, "y", kind="residue")).notices
        assert sum("several rows" in notice for notice in notices) == expected
