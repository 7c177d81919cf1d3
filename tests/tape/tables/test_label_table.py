"""Sequences and a table of their labels, joined by the id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.records import RecordOptions
from tape.tables.label_table import read_with_labels
from tape.tables.options import TableOptions
from tape.tables.splits import write_splits
from tape.tables.table import table_for_evaluation, table_for_training

SEQUENCES = {f"p{number}": "MK" + "ACDEFGHIKLMNPQRSTVWY"[number] for number in range(20)}


def as_fasta(sequences: dict[str, str]) -> str:
    return "".join(f">{name} a protein Tm=1.5\n{sequence}\n" for name, sequence in sequences.items())


def as_a3m(sequences: dict[str, str]) -> str:
    return "".join(f">{name}\n{sequence[:1]}-{sequence[1:].lower()}\n" for name, sequence in sequences.items())


def as_tab(sequences: dict[str, str]) -> str:
    return "".join(f"{name}\t{sequence}\n" for name, sequence in sequences.items())


def as_jsonl(sequences: dict[str, str]) -> str:
    return "".join(json.dumps({"id": name, "sequence": text}) + "\n" for name, text in sequences.items())


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def label_table(folder: Path, lines: list[str], header: str = "id,Tm") -> Path:
    return write(folder, "labels.csv", "\n".join([header, *lines]) + "\n")


def lines(names: list[str] | None = None) -> list[str]:
    return [f"{name},{50 + int(name[1:]) / 4}" for name in names or SEQUENCES]


@pytest.mark.parametrize(
    ("name", "writer"), [("p.fasta", as_fasta), ("p.a3m", as_a3m), ("p.tab", as_tab), ("p.jsonl", as_jsonl)]
)
def test_every_format_is_joined_by_id(name: str, writer: object, tmp_path: Path) -> None:
    assert callable(writer)
    path = write(tmp_path, name, writer(SEQUENCES))
    table = table_for_training(TableOptions(path, "Tm", label_table(tmp_path, lines(sorted(SEQUENCES)))))
    assert table.identifiers == tuple(SEQUENCES)
    assert [sequence.upper() for sequence in table.sequences] == list(SEQUENCES.values())
    assert table.labels == tuple(50 + number / 4 for number in range(20))
    assert (table.path, table.target.task, table.count("train")) == (path, "p_Tm", 16)


def test_proteins_without_a_row_are_left_out_and_named(tmp_path: Path) -> None:
    fasta = write(tmp_path, "p.fasta", as_fasta({**SEQUENCES, "x": "MKW", "y": "MKY", "z": "MKV", "q": "MKL"}))
    labels = label_table(tmp_path, [*lines(), "z,NA"])
    table = table_for_training(TableOptions(fasta, "Tm", labels))
    assert table.identifiers == tuple(SEQUENCES)
    notices = "\n".join(table.notices)
    assert f"3 of 24 proteins are left out: {labels} has no row for them (x, y, q)" in notices
    assert "1 of 21 proteins are left out: they have no Tm" in notices


def test_rows_without_a_sequence_are_an_error(tmp_path: Path) -> None:
    fasta = write(tmp_path, "p.fasta", as_fasta({f"sp|{name}|X": text for name, text in SEQUENCES.items()}))
    message = r"labels\.csv: 20 of 20 ids are not in .*p\.fasta \(p0, p1, p2 \.\.\.\)\. It has ids such as sp\|p0\|X, "
    with pytest.raises(DataError, match=message):
        read_with_labels(fasta, label_table(tmp_path, lines()), RecordOptions())
    some = write(tmp_path, "some.fasta", as_fasta({name: SEQUENCES[name] for name in list(SEQUENCES)[2:]}))
    with pytest.raises(DataError, match=r"2 of 20 ids are not in .*some\.fasta \(p0, p1\)\. It"):
        read_with_labels(some, label_table(tmp_path, lines()), RecordOptions())


@pytest.mark.parametrize(
    ("sequences", "rows", "header", "message"),
    [
        (">a\nMK\n>a x\nMC\n", ["a,1"], "id,Tm", r"p\.fasta, record 2 \(a\): the id 'a' is also that of .*record 1"),
        (">a\nMK\n", ["a,1", "a,1"], "id,Tm", r"labels\.csv, record 2: the id 'a' is also that of .*csv, record 1"),
        (">a\nMK\n>\nMC\n", ["a,1"], "id,Tm", r"p\.fasta, record 2: no id, by which labels and sequences are joined"),
        (
            ">a\nMK\n",
            ["a,1"],
            "protein,Tm",
            r"labels\.csv, record 1: no id, .* id or identifier or name, or in that of",
        ),
        (">a\nMK\n", [], "id,Tm", r"labels\.csv: contains no record"),
    ],
)
def test_ids_that_do_not_join_are_refused(
    sequences: str, rows: list[str], header: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_with_labels(write(tmp_path, "p.fasta", sequences), label_table(tmp_path, rows, header), RecordOptions())


def test_a_message_about_a_label_names_both_files(tmp_path: Path) -> None:
    fasta = write(tmp_path, "p.fasta", as_fasta(SEQUENCES))
    labels = label_table(tmp_path, [*lines()[:-1], "p19,many"])
    with pytest.raises(DataError, match=r"p\.fasta, record 20 \(p19\) with .*labels\.csv, record 20: .*'many'"):
        table_for_training(TableOptions(fasta, "Tm", labels, kind="regression"))


@pytest.mark.parametrize(("name", "writer"), [("p.fasta", as_fasta), ("p.jsonl", as_jsonl)])
def test_the_column_of_ids_is_that_of_both_files_if_they_have_columns(
    name: str, writer: object, tmp_path: Path
) -> None:
    assert callable(writer)
    path = write(tmp_path, name, writer(SEQUENCES).replace('"id"', '"protein"'))
    labels = label_table(tmp_path, [f"{line},old{number}" for number, line in enumerate(lines())], "protein,Tm,id")
    records, notices = read_with_labels(path, labels, RecordOptions(id_column="protein"))
    assert ([record.identifier for record in records], notices) == (list(SEQUENCES), [])
    with pytest.raises(DataError, match=r"no column 'gene' with ids"):
        read_with_labels(path, labels, RecordOptions(id_column="gene"))


def test_splits_are_read_from_the_table_of_labels(tmp_path: Path) -> None:
    fasta = write(tmp_path, "p.fasta", as_fasta(SEQUENCES).replace("Tm=1.5", "split=train"))
    names = ["train"] * 14 + ["valid"] * 3 + ["test"] * 3
    rows = [f"{line},{name}" for line, name in zip(lines(), names, strict=True)]
    table = table_for_training(TableOptions(fasta, "Tm", label_table(tmp_path, rows, "id,Tm,split")))
    assert table.splits == tuple(names)


def test_an_evaluation_reads_them_in_the_same_way(tmp_path: Path) -> None:
    fasta = write(tmp_path, "p.fasta", as_fasta(SEQUENCES))
    options = TableOptions(fasta, "Tm", label_table(tmp_path, lines()))
    trained = table_for_training(options)
    write_splits(tmp_path / "splits.tsv", trained.identifiers, trained.digests, trained.splits)
    found = table_for_evaluation(TableOptions(fasta, labels=options.labels), trained.target, tmp_path / "splits.tsv")
    assert (found.splits, found.labels) == (trained.splits, trained.labels)
