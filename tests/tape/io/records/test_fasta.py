"""FASTA's comments, headers and limits, and the alignments of a3m and Stockholm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.records import Record, fasta, open_records


def records(path: Path, with_fields: bool = False) -> list[Record]:
    return list(open_records(path, with_fields=with_fields))


def test_lines_that_begin_with_a_semicolon_are_comments(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text("; of the file\n>a\n;AAAA\nMK\n; AAAA\nV\n")
    assert [record.sequence for record in records(tmp_path / "x.fasta")] == ["MKV"]


@pytest.mark.parametrize("line", [" >b", "MK>b"])
def test_headers_are_not_read_as_residues(tmp_path: Path, line: str) -> None:
    file = tmp_path / "x.fasta"
    file.write_text(f">a\nMKV\n{line}\nGGG\n")
    with pytest.raises(DataError, match="line 3: '>' inside a line of residues"):
        records(file)


def test_latin1_is_allowed_in_headers_only(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_bytes(">P1|caféine x\nMKV\n;é\n>b\nA\n".encode("latin-1"))
    assert [record.identifier for record in records(tmp_path / "x.fasta")] == ["P1|caféine", "b"]
    (tmp_path / "y.fasta").write_bytes(">a\nMKV\nLé\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"y\.fasta, line 3: not UTF-8.*iconv -f LATIN1"):
        records(tmp_path / "y.fasta")


def test_names_with_an_equals_sign_are_fields(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(">fold_label=3 a\nMK\n>b fold_label=4\nV\n")
    found = records(tmp_path / "x.fasta", with_fields=True)
    assert [(record.identifier, record.fields.get("fold_label")) for record in found] == [(None, "3"), ("b", "4")]


def test_a_record_of_any_number_of_lines_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasta, "LONGEST_LINE", 100)
    (tmp_path / "x.fasta").write_text(">a\n" + "ACDEFGHIK\n" * 11)
    with pytest.raises(DataError, match=r"x\.fasta, line 12: a record of more than 100 characters"):
        records(tmp_path / "x.fasta")


def test_gaps_of_a3m_are_removed_and_insertions_are_residues(tmp_path: Path) -> None:
    text = "#A3M#\n>ss_pred\nCCC\n>query\nMKV\n>hit\nM-acV.\n"
    (tmp_path / "x.a3m").write_text(text)
    found = records(tmp_path / "x.a3m")
    assert [(record.identifier, record.residues) for record in found] == [("query", "MKV"), ("hit", "MacV")]
    assert found[1].where == f"{tmp_path / 'x.a3m'}, record 2 (hit)"


def test_rows_of_stockholm_are_aligned(tmp_path: Path) -> None:
    (tmp_path / "x.sto").write_text("# STOCKHOLM 1.0\na  M-K.\n//\n")
    assert [(record.sequence, record.residues) for record in records(tmp_path / "x.sto")] == [("M-K.", "MK")]


def test_gaps_of_fasta_are_kept_for_the_tokenizer_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(">a\nM-K\n")
    assert records(tmp_path / "x.fasta")[0].residues == "M-K"
