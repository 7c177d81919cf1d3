"""Which columns are the sequence and the id, and which ids are allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tape.errors import DataError
from tape.io.lmdb_store import write_lmdb
from tape.io.records import Record, RecordOptions, names_of, open_records


def read(path: Path, records: list[dict[str, Any]], **options: str) -> list[Record]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return list(open_records(path, RecordOptions(**options), with_fields=True))


def test_two_sequence_columns_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    records = [{"text": "a note", "sequence": "MKV"}]
    with pytest.raises(DataError, match=r"record 1: 'text' and 'sequence' may both be .* --sequence-column NAME"):
        read(tmp_path / "x.jsonl", records)
    found = read(tmp_path / "x.jsonl", records, sequence_column="sequence")
    assert [(record.sequence, record.fields) for record in found] == [("MKV", {"text": "a note"})]
    assert read(tmp_path / "x.jsonl", [{"text": None, "sequence": "MKV"}])[0].sequence == "MKV"


@pytest.mark.parametrize(
    "record",
    [
        {"Entry": "P1", "Entry Name": "A_HUMAN", "Sequence": "MKV"},  # UniProt
        {"mutant": "A1M", "mutated_sequence": "MKV", "DMS_score": 1.5, "ID": "P1"},  # ProteinGym
        {"SEQ": "MKV", "Identifier": "P1", "Name": "kinase", "Accession": "A1"},
        {"sequence": "MKV", "Sequence": "AC", "name": "P1", "Name": "P2", "ID": "P3"},  # exact names come first
        {"Sequence": "MKV", "Name": "hemoglobin", "Entry": "P1"},
        {"Id": None, "ENTRY": "P1", "primary": "MKV", "seq": "AC"},
    ],
)
def test_columns_of_other_programs_are_known_in_any_letter_case(tmp_path: Path, record: dict[str, Any]) -> None:
    (found,) = read(tmp_path / "x.jsonl", [record])
    assert (found.identifier, found.sequence) == ("P1", "MKV")


@pytest.mark.parametrize("entry", [["P1", "P2"], {"first": "P1"}, "a\tb", "x" * 5000, True])
def test_an_entry_that_can_not_be_an_id_is_none(tmp_path: Path, entry: Any) -> None:
    (found,) = read(tmp_path / "x.jsonl", [{"text": "MKV", "Entry": entry}])
    assert found.identifier is None


def test_two_spellings_of_a_sequence_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'SEQUENCE' and 'Seq' may both be the sequence; .* --sequence-column NAME"):
        read(tmp_path / "x.jsonl", [{"Seq": "MKV", "SEQUENCE": "MKV"}])


def test_the_named_columns_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="record 1: no column 'seq'; it has primary"):
        read(tmp_path / "x.jsonl", [{"primary": "MKV"}], sequence_column="seq")
    with pytest.raises(DataError, match="record 1: no column 'accession' with ids; it has primary"):
        read(tmp_path / "x.jsonl", [{"primary": "MKV"}], id_column="accession")
    found = read(tmp_path / "x.jsonl", [{"id": 1, "accession": "P1", "primary": "MKV"}], id_column="accession")
    assert found[0].identifier == "P1"


def test_lmdb_has_its_sequence_in_primary(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "x.lmdb", [{"primary": "MKV", "text": "a note"}])
    assert [record.sequence for record in open_records(tmp_path / "x.lmdb")] == ["MKV"]
    named = open_records(tmp_path / "x.lmdb", RecordOptions(sequence_column="text"))
    assert [record.sequence for record in named] == ["anote"]


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("a\0b", "has control characters, such as NUL"),
        ("a\nb", "has control characters"),
        ("\ud800", "has half of a surrogate pair"),
        ("x" * 70_000, "has 70,000 characters; at most 4,096 are allowed"),
        ([1], "an id is text or a number, not list"),
        (True, "an id is text or a number, not bool"),
    ],
)
def test_ids_that_no_file_can_store_are_refused(tmp_path: Path, identifier: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"x\.jsonl, record 2: .*{message}"):
        read(tmp_path / "x.jsonl", [{"id": "good", "text": "MK"}, {"id": identifier, "text": "MK"}])


def test_records_without_id_are_numbered_without_colliding() -> None:
    assert names_of([None, "1", None, "2", "unnamed_2", None]) == [
        "0",
        "1",
        "unnamed_unnamed_2",
        "2",
        "unnamed_2",
        "5",
    ]
