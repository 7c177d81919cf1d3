"""FASTA's comments, headers and limits, and the alignments of a3m and Stockholm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.records import Record, ResidueBlock, fasta, fasta_blocks, open_blocks, open_records


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
    monkeypatch.setattr(fasta_blocks, "_BLOCK_BYTES", 16)
    monkeypatch.setattr(fasta_blocks, "_LONGEST_BLOCK", 32)
    (tmp_path / "x.fasta").write_text(">a\n" + "ACDEFGHIK\n" * 11)
    with pytest.raises(DataError, match=r"x\.fasta, line 12: a record of more than 100 characters"):
        records(tmp_path / "x.fasta")


@pytest.mark.parametrize("longest_block", [8, 1 << 20])
def test_one_byte_order_mark_is_skipped_whatever_the_length_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest_block: int
) -> None:
    monkeypatch.setattr(fasta_blocks, "_BLOCK_BYTES", 8)
    monkeypatch.setattr(fasta_blocks, "_LONGEST_BLOCK", longest_block)
    (tmp_path / "x.fasta").write_bytes(b"\xef\xbb\xbf>a\nACDEFGHIKLMN\n")
    assert [record.sequence for record in records(tmp_path / "x.fasta")] == ["ACDEFGHIKLMN"]
    (tmp_path / "y.fasta").write_bytes(b"\xef\xbb\xbf" * 2 + b">a\nACDEFGHIKLMN\n")
    with pytest.raises(DataError, match=r"y\.fasta, line 1: not FASTA"):
        records(tmp_path / "y.fasta")


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


PLAIN = b">a first\nMKV\nLA\n>b\nAC\n>c|(1->3)\nGGG\n"


@pytest.mark.parametrize(
    "special",
    [
        b">d\nM K\n",
        b">d\n;x\nMK\n",
        b">d\r\nMK\r\n",
        b">d\rMK\n",
        b">\xe9t\xe9\nMK\n",
        b">d\x01\nMK\n",
        b">d \t\x7f\nMK\n",
    ],
)
def test_blocks_are_read_as_single_lines_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, special: bytes) -> None:
    """Whatever else a block has, its records, their numbers and the error are those of reading line by line."""
    path = tmp_path / "x.fasta"
    path.write_bytes(PLAIN + special + PLAIN)

    def outcome() -> list[Record] | str:
        try:
            return records(path)
        except DataError as error:
            return str(error)

    monkeypatch.setattr(fasta_blocks, "_BLOCK_BYTES", 16)
    in_blocks = outcome()
    monkeypatch.setattr(fasta_blocks, "parse_block", lambda content, comments: None)
    assert in_blocks == outcome()


def test_lines_are_numbered_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasta_blocks, "_BLOCK_BYTES", 16)
    (tmp_path / "x.fasta").write_bytes(PLAIN * 3 + b">d\nM\0K\n")
    with pytest.raises(DataError, match=r"x\.fasta, line 23: has NUL characters"):
        records(tmp_path / "x.fasta")


def test_almost_all_records_come_in_blocks(tmp_path: Path) -> None:
    """The speed of preprocessing depends on it."""
    (tmp_path / "x.fasta").write_bytes(PLAIN)
    block, last = open_blocks(tmp_path / "x.fasta")  # of the last record, the end is known only at that of the file
    assert isinstance(block, ResidueBlock)
    assert isinstance(last, ResidueBlock)
    assert (block.sizes.tolist(), block.residues, last.residues) == ([5, 2], "MKVLAAC", "GGG")
    assert [block.record(0), block.record(1), last.record(0)] == records(tmp_path / "x.fasta")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("last", [b"", b"GGG"], ids=["terminated", "unterminated"])
def test_residues_of_a_block_are_those_of_all_lines(tmp_path: Path, line_end: bytes, last: bytes) -> None:
    (tmp_path / "x.fasta").write_bytes((PLAIN + b">d\nMK\nVL\n\nA\n").replace(b"\n", line_end) + last)
    blocks = list(open_blocks(tmp_path / "x.fasta"))
    assert all(isinstance(block, ResidueBlock) for block in blocks)
    assert "".join(block.residues for block in blocks) == "MKVLAACGGGMKVLA" + last.decode()  # type: ignore[union-attr]
    assert [size for block in blocks for size in block.sizes] == [5, 2, 3, 5 + len(last)]  # type: ignore[union-attr]
