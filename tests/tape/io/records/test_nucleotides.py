"""Files of nucleotides among files of proteins."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.records import NucleotideCounter, Nucleotides, open_records

GENE = "ATGGCCATTGTAATGGGCCGCTGAAAGGGTGCCCGATAG" * 3
PROTEIN = "MKVLAAGIVGLLCTNDEHRWYFPSQ" * 3


def letters(sequence: str) -> bool:
    counter = NucleotideCounter()
    counter.add(sequence)
    return counter.are_nucleotides


def test_nucleotides_are_recognized_and_proteins_are_not() -> None:
    assert letters(GENE)
    assert letters(GENE.replace("T", "U").lower() + "NNNN")
    assert not letters(PROTEIN)
    assert not letters("A" * 10_000)  # poly-alanine
    assert not letters("ACGT")  # too short to conclude anything


@pytest.mark.parametrize(("name", "sequence"), [("x.fasta", GENE), ("x.fna", PROTEIN), ("x.ffn.gz", PROTEIN)])
def test_nucleotides_are_warned_of_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, sequence: str
) -> None:
    data = f">a\n{sequence}\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with caplog.at_level(logging.WARNING):
        assert [record.sequence for record in open_records(tmp_path / name)] == [sequence]
    assert [entry.message.startswith(str(tmp_path / name)) for entry in caplog.records] == [True]
    with pytest.raises(DataError, match="translate them to proteins first, or give --allow-nucleotides"):
        list(open_records(tmp_path / name, nucleotides=Nucleotides.REFUSE))
    caplog.clear()
    assert len(list(open_records(tmp_path / name, nucleotides=Nucleotides.ALLOW))) == 1
    assert caplog.records == []
