"""CSV is read strictly, TSV without quoting; text that is not UTF-8 is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.records import open_records


def read(path: Path, content: str | bytes) -> list[tuple[str | None, str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(record.identifier, record.sequence) for record in open_records(path)]


def test_a_quote_in_tsv_is_a_character(tmp_path: Path) -> None:
    text = 'id\tprimary\n"a\tMKV\nb\tLLA\nc"\tGG\n5"-x\tAA\n'
    assert read(tmp_path / "x.tsv", text) == [('"a', "MKV"), ("b", "LLA"), ('c"', "GG"), ('5"-x', "AA")]


def test_a_quoted_cell_of_tsv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.tsv, record 1: a cell in quotes, which TSV does not have"):
        read(tmp_path / "x.tsv", 'id\tprimary\na\t"MKV"\n')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id,primary\n"a"b,MKV\n', r"line 2: not valid CSV"),
        ('id,primary\na,"MKV\nb,LLA\n', r"line 3: not valid CSV"),
        ('id,primary,note\na,MKV,"x\nb,LLA,y\nc,GG,z"\n', r"record 1: a quoted cell that contains further lines"),
        ("id,primary\na,MKV,1\n", r"record 1: the header has 2 columns, this record has 3"),
        ("id,primary,id\na,MKV,1\n", r"two columns are named 'id'"),
        ("id,primary\na,MKV\n\0\n", r"line 3: has NUL characters"),
        ("id,primary\ncafé,MKV\n".encode("latin-1"), r"line 2: not UTF-8.*iconv -f LATIN1"),
    ],
)
def test_csv_is_read_strictly(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"x\.csv[:,] {message}"):
        read(tmp_path / "x.csv", text)


def test_wrapped_sequences_and_lists_in_quoted_cells_are_read(tmp_path: Path) -> None:
    text = 'id,primary,ss3\na,"MK\nV","[0, 1,\n 2]"\n"b, or ""B""",LL,"[1,1]"\n'
    assert read(tmp_path / "x.csv", text) == [("a", "MKV"), ('b, or "B"', "LL")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.json", "x.fasta"])
def test_byte_order_marks_name_the_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    text = {
        "x.csv": "id,primary\né,MK\n",
        "x.tsv": "id\tprimary\né\tMK\n",
        "x.jsonl": '{"id": "é", "text": "MK"}\n',
        "x.json": '[{"id": "é", "text": "MK"}]',
        "x.fasta": ">é\nMK\n",
    }[name]
    assert read(tmp_path / name, text.encode(encoding)) == [("é", "MK")]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json", "x.fasta", "x.txt", "x.sto"])
def test_utf16_without_a_mark_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"line 1: has NUL characters.*iconv -f UTF-16LE"):
        read(tmp_path / name, "primary\nMKV\n".encode("utf-16-le"))


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.txt", "x.sto"])
def test_latin1_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    text = {
        "x.jsonl": '{"text": "MK"}\n{"id": "é", "text": "MK"}\n',
        "x.json": '[{"text": "MK"},\n{"id": "é", "text": "MK"}]',
        "x.txt": "MK\né\tMK\n",
        "x.sto": "# STOCKHOLM 1.0\né MK\n//\n",
    }[name]
    with pytest.raises(DataError, match=rf"{name}, line 2: not UTF-8.*iconv -f LATIN1"):
        read(tmp_path / name, text.encode("latin-1"))
