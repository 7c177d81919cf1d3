"""Reading the proteins that are compared."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tape.errors import ConfigError, DataError
from tape.io.lmdb_store import write_lmdb
from tape.io.records import RecordOptions
from tape.leakage.proteins import Protein, ReferenceFile, read_test_proteins, sequence_digest


def test_both_sides_are_normalized_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(">x\nacDJ*\n>\nGG\n")
    expected = [Protein("x", "ACDX"), Protein("1", "GG")]
    proteins, sha256 = read_test_proteins(path, RecordOptions())
    reference = ReferenceFile(path)
    assert proteins == list(reference) == expected
    assert sha256 == reference.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (reference.name, reference.proteins) == ("a.fasta", 2)


def test_columns_are_those_of_tables_only(tmp_path: Path) -> None:
    table, fasta = tmp_path / "a.csv", tmp_path / "b.fasta"
    table.write_text("key,aa\nx,ACD\n")
    fasta.write_text(">y\nGG\n")
    options = RecordOptions(None, "aa", "key")
    assert read_test_proteins(table, options)[0] == list(ReferenceFile(table, options)) == [Protein("x", "ACD")]
    assert list(ReferenceFile(fasta, options)) == [Protein("y", "GG")]


def test_columns_of_parquet_can_be_named(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"key": ["x"], "aa": ["ACD"]}).to_parquet(tmp_path / "a.parquet")
    options = RecordOptions(None, "aa", "key")
    assert list(ReferenceFile(tmp_path / "a.parquet", options)) == [Protein("x", "ACD")]


def test_the_sha256_of_a_split_is_that_of_its_database(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    write_lmdb(path, [{"id": "x", "primary": "ACD"}])
    proteins, sha256 = read_test_proteins(path, RecordOptions())
    assert proteins == [Protein("x", "ACD")]
    assert sha256 == hashlib.sha256((path / "data.mdb").read_bytes()).hexdigest()


def test_the_digest_identifies_residues() -> None:
    assert sequence_digest("ACD") == hashlib.sha256(b"ACD").hexdigest()[:16]
    assert sequence_digest("ACD") != sequence_digest("ACE")


@pytest.mark.parametrize("content", ["", ">x\nA1C\n", ">x\n***\n"])
def test_files_without_proteins_are_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(content)
    with pytest.raises(DataError, match=r"a\.fasta"):
        read_test_proteins(path, RecordOptions())
    with pytest.raises(DataError, match=r"a\.fasta"):
        list(ReferenceFile(path))


def test_preprocessed_corpora_and_folders_are_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"text_document\.bin: a preprocessed corpus .* the file that it was made"):
        ReferenceFile(tmp_path / "text_document.bin")
    with pytest.raises(ConfigError, match="a directory; give a file of proteins"):
        ReferenceFile(tmp_path)
