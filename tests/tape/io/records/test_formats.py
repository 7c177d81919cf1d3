"""How the format of a file is determined: suffix, content, or ``--format``."""

from __future__ import annotations

import bz2
import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.records import RecordOptions, open_records
from tape.io.records.formats import has_columns

FASTA = b">a first\nMKV\n>b\nLLA\n"


def sequences(path: Path | str, format: str | None = None) -> list[str]:
    return [record.sequence for record in open_records(path, RecordOptions(format))]


@pytest.mark.parametrize("suffix", [".fas", ".pep", ".fsa", ".aa", ".mpfa", ".FASTA", ".a3m", ".fa.bz2"])
def test_more_suffixes_of_fasta_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(bz2.compress(FASTA) if suffix.endswith(".bz2") else FASTA)
    assert sequences(path) == ["MKV", "LLA"]


@pytest.mark.parametrize(
    ("name", "chosen", "expected"),
    [
        ("x.csv.gz", None, True),
        ("x.parquet", None, True),
        ("x.lmdb", None, True),
        ("x.fasta", None, False),
        ("x.a3m", None, False),
        ("x.txt", None, False),
        ("x", None, False),
        ("x.txt", "tsv", True),
        ("x.csv", "fasta.gz", False),
    ],
)
def test_tables_have_columns(name: str, chosen: str | None, expected: bool) -> None:
    assert has_columns(name, chosen) == expected


@pytest.mark.parametrize("name", ["x.txt", "x.tab", "x", "x.txt.gz"])
def test_fasta_is_recognized_by_its_first_character(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\n" + FASTA) if name.endswith(".gz") else b"\n" + FASTA)
    assert sequences(path) == ["MKV", "LLA"]


@pytest.mark.parametrize("text", ["MKV\n>b\nLLA\n", "; comment\n>b\nLLA\n"])
def test_lines_of_fasta_are_not_read_as_residues(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(DataError, match=r"x\.txt, line [12]: begins with '[>;]'.*--format fasta"):
        sequences(tmp_path / "x.txt")


@pytest.mark.parametrize("name", ["x", "x.pdb", "x.gz"])
def test_an_unknown_format_names_the_option(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"MKV\n") if name.endswith(".gz") else b"MKV\n")
    with pytest.raises(DataError, match=rf"{name}: .*--format"):
        sequences(tmp_path / name)
    assert sequences(tmp_path / name, "text.gz" if name.endswith(".gz") else "text") == ["MKV"]


@pytest.mark.parametrize(("format", "name"), [("pdb", "x"), ("fasta.zip", "x"), ("", "x")])
def test_an_unknown_format_is_refused(tmp_path: Path, format: str, name: str) -> None:
    (tmp_path / name).write_bytes(FASTA)
    with pytest.raises(DataError, match="no such format; there are fasta, a3m"):
        sequences(tmp_path / name, format)


def test_a_format_overrides_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(b"sequence\tid\nMKV\ta\n")
    assert sequences(tmp_path / "x.dat", "tsv") == ["MKV"]
    (tmp_path / "x.csv").write_bytes(FASTA)
    assert sequences(tmp_path / "x.csv", "fasta") == ["MKV", "LLA"]


def test_compressed_data_without_the_suffix_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_bytes(gzip.compress(FASTA))
    with pytest.raises(DataError, match=r"x\.fasta: compressed; its name must end in \.gz"):
        sequences(tmp_path / "x.fasta")
    assert sequences(tmp_path / "x.fasta", "fasta.gz") == ["MKV", "LLA"]


def test_a_pipe_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(FASTA,))
    writer.start()
    assert sequences(tmp_path / "pipe") == ["MKV", "LLA"]
    writer.join()


@pytest.mark.parametrize(
    ("format", "data"),
    [("fasta.gz", gzip.compress(FASTA)), ("csv", b"primary\nMKV\nLLA\n"), (None, FASTA)],
    ids=["fasta.gz", "csv", "recognized"],  # gzip's data contain the time; ids must be the same in all workers
)
def test_standard_input_is_read(repository_root: Path, format: str | None, data: bytes) -> None:
    code = (
        "from tape.io.records import RecordOptions, open_records\n"
        f"print(*(record.sequence for record in open_records('-', RecordOptions({format!r}))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository_root)}
    result = subprocess.run([sys.executable, "-c", code], input=data, env=environment, capture_output=True, check=True)
    assert result.stdout.split() == [b"MKV", b"LLA"]


def test_an_unknown_format_of_standard_input_names_the_option(repository_root: Path) -> None:
    code = "from tape.io.records import open_records\nprint(*open_records('-'))"
    environment = {**os.environ, "PYTHONPATH": str(repository_root)}
    result = subprocess.run(
        [sys.executable, "-c", code], input=b"MKV", env=environment, capture_output=True, check=False
    )
    assert b"standard input: its format is unknown; give --format" in result.stderr
