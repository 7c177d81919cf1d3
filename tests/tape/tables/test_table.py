"""A user's table as the data of a run and of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tape.errors import ConfigError, DataError
from tape.tables.options import TableOptions
from tape.tables.splits import write_splits
from tape.tables.table import Table, table_for_evaluation, table_for_training, task_name


def write_table(folder: Path, rows: list[str], header: str = "id,sequence,Tm") -> Path:
    path = folder / "my.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def rows(count: int = 20) -> list[str]:
    return [f"p{i},MK{'ACDEFGHIKLMNPQRSTVWY'[i % 20] * (1 + i // 20)},{50 + i / 2}" for i in range(count)]


def values(table: Table, split: str) -> np.ndarray:
    return np.array([table.labels[place] for place in table.places(split)])


def test_values_are_standardized_by_the_training_split_alone(tmp_path: Path) -> None:
    table = table_for_training(TableOptions(write_table(tmp_path, rows()), "Tm"))
    assert (table.count("train"), table.count("valid"), table.count("test")) == (16, 2, 2)
    assert table.target.scales == ((values(table, "train").mean(), values(table, "train").std()),)
    plain = table_for_training(TableOptions(write_table(tmp_path, rows()), "Tm", standardize=False))
    assert plain.target.scales == ((0.0, 1.0),)


def test_what_was_inferred_and_left_out_is_announced(tmp_path: Path) -> None:
    table = table_for_training(TableOptions(write_table(tmp_path, [*rows(), "q,MKA,NA", "r,MKC,"]), "Tm"))
    text = "\n".join(table.notices)
    assert "regression of Tm, since it has decimal numbers" in text
    assert "2 of 22 proteins are left out: they have no Tm" in text
    assert "splits drawn 80,10,10 with seed 42: train 16" in text


def test_a_protein_named_na_and_a_sequence_na_survive(tmp_path: Path) -> None:
    table = table_for_training(TableOptions(write_table(tmp_path, [*rows(), "NA,NA,55.5"]), "Tm"))
    assert (table.identifiers[-1], table.sequences[-1], table.labels[-1]) == ("NA", "NA", 55.5)


def test_a_short_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"my\.csv, record 21: the header has 3 columns, this record has 2"):
        table_for_training(TableOptions(write_table(tmp_path, [*rows(), "q,MKA"]), "Tm"))


def test_a_column_named_split_is_used(tmp_path: Path) -> None:
    lines = [f"{row},{'train' if i < 15 else 'val' if i < 18 else 'test'}" for i, row in enumerate(rows())]
    path = write_table(tmp_path, lines, "id,sequence,Tm,split")
    assert table_for_training(TableOptions(path, "Tm")).splits[14:19] == ("train", "valid", "valid", "valid", "test")
    assert table_for_training(TableOptions(path, "Tm", fractions=(50, 25, 25))).count("train") == 10


def test_classes_without_a_training_protein_are_announced(tmp_path: Path) -> None:
    classes, splits = ["a", "b"] * 9 + ["a", "x"], ["train"] * 15 + ["valid"] * 5
    lines = [f"{row},{name},{split}" for row, name, split in zip(rows(), classes, splits, strict=True)]
    table = table_for_training(TableOptions(write_table(tmp_path, lines, "id,sequence,Tm,kind,split"), "kind"))
    assert table.training_notices == ("classes without a training protein, which can't be learned: x",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"p{i},MK{'A' * i},5.5" for i in range(1, 20)], "column 'Tm' is 5.5 for all training proteins"),
        (rows(8), "8 proteins with a label; at least 10"),
        ([*rows(), "q,MK1,4.5"], r"my\.csv, record 21 \(q\): .*'1'"),
    ],
)
def test_a_table_that_can_not_be_learned_is_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        table_for_training(TableOptions(write_table(tmp_path, lines), "Tm"))


def test_an_evaluation_finds_the_splits_of_the_run_by_sequence(tmp_path: Path) -> None:
    trained = table_for_training(TableOptions(write_table(tmp_path, rows()), "Tm"))
    file = tmp_path / "splits.tsv"
    write_splits(file, trained.identifiers, trained.digests, trained.splits)
    path = write_table(tmp_path, ["other,WWWW,48.5", *reversed(rows())])
    table = table_for_evaluation(TableOptions(path), trained.target, file)
    assert table.splits == ("new", *reversed(trained.splits))
    assert len(table.places("all")) == 21
    with pytest.raises(DataError, match="no protein of split casp; it has train 16, valid 2, test 2, new 1"):
        table.places("casp")


def test_a_resumed_run_keeps_its_splits(tmp_path: Path) -> None:
    options = TableOptions(write_table(tmp_path, rows()), "Tm", seed=1)
    trained, file = table_for_training(options), tmp_path / "splits.tsv"
    write_splits(file, trained.identifiers, trained.digests, trained.splits)
    resumed = TableOptions(options.path, "Tm", seed=2, splits_file=file)
    assert table_for_training(resumed).splits == trained.splits
    write_table(tmp_path, [*rows(), "q,WWWW,48.5"])
    with pytest.raises(DataError, match=r"record 21 \(q\): not in .*splits\.tsv"):
        table_for_training(resumed)


def test_the_name_of_a_task_is_never_that_of_a_built_in_one() -> None:
    assert task_name(Path("data/my proteins.csv.gz"), "Tm (C)") == "my_proteins_Tm_C"
    assert task_name(Path("remote.csv"), "homology") == "remote_homology_table"
    assert task_name(Path("my.csv"), "Tm", "kcat") == "my_Tm_kcat"
    assert task_name(Path("my.csv"), *(f"activity on {n}" for n in range(9))) == "my_activity_on_0_and_8_more"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": (80, 0, 20)}, "--split 80,0,20: the best epoch is chosen on valid"),
        ({"fractions": (0, 50, 50)}, "that of train above 0"),
        ({"fractions": (80, 10, 10), "split_column": "fold"}, "give one of them"),
    ],
)
def test_proportions_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TableOptions(Path("t.csv"), "Tm", **change)  # type: ignore[arg-type]
