"""The table of tape-leakage is read as it was written, and checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest

from tape.errors import DataError
from tape.leakage.hits import Hit
from tape.leakage.proteins import Protein, sequence_digest
from tape.leakage.table import COLUMNS, LeakageHead, ProteinFile, is_table, read_table, write_table

PROTEINS = [Protein("one", "ACD"), Protein("two words", "GG")]
FILES = (ProteinFile("train.fasta", "data/train.fasta", "ab", 3), ProteinFile("corpus.fasta", "corpus.fasta", "cd", 9))
HEAD = LeakageHead({"path": "t.fasta", "sha256": "ef", "proteins": 2}, FILES, {"tool": "MMseqs2"})
HITS: list[list[Hit | None]] = [[Hit("x", 200 / 3, 100.0), None], [None, Hit("y|z", 20.0, 50.0)]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_table(tmp_path / "leakage.tsv", HEAD, PROTEINS, HITS)
    return tmp_path / "leakage.tsv"


def test_tables_are_read_as_written(path: Path) -> None:
    table = read_table(path)
    assert table.head == HEAD
    digests = [sequence_digest(protein.residues) for protein in PROTEINS]
    np.testing.assert_allclose(table.identities_of("train.fasta", digests), [66.6667, math.nan])
    np.testing.assert_allclose(table.identities_of("corpus.fasta", [*digests[::-1], digests[1]]), [20, math.nan, 20])
    assert is_table(path)


def test_other_programs_read_the_table(path: Path) -> None:
    frame = pandas.read_csv(path, sep="\t", comment="#")
    assert tuple(frame.columns) == COLUMNS
    assert frame["id"].tolist() == ["one", "two words", "one", "two words"]
    assert frame["length"].tolist() == [3, 2, 3, 2]


def test_a_protein_that_is_missing_is_refused_with_what_to_do(path: Path) -> None:
    with pytest.raises(DataError, match=r"leakage\.tsv: .* lacks 1 of 2 proteins.* run tape-leakage again"):
        read_table(path).identities_of("train.fasta", [sequence_digest("GG"), sequence_digest("ACDEF")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "not a table of tape-leakage"),
        (lambda text: text.replace("proteinlm-leakage", "other"), "not a table of tape-leakage"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "version 2 of proteinlm-leakage; this program"),
        (lambda text: text.replace('"date"', '"d"'), "line 1: date must be str, not None"),
        (lambda text: text.replace('"sha256": "ab"', '"sha256": 1'), r"references\[0\]: sha256 must be str, not 1"),
        (lambda text: text.replace("coverage\n", "cover\n"), "line 2: expected the columns id length"),
        (lambda text: text.replace("66.6667", "high"), "line 3: identity must be a number from 0 to 100"),
        (lambda text: text.replace("66.6667", "166"), "line 3: identity must be a number from 0 to 100"),
        (lambda text: text.replace("two words\t", "two\twords\t"), "line 4: has 8 columns, not 7"),
        (lambda text: text.replace("\ttrain.fasta\t", "\tother\t"), "line 3: 'other' is not one of the references"),
        (lambda text: text.replace("{", "{,", 1), "line 1: not valid JSON"),
    ],
)
def test_damaged_tables_are_refused_by_line(change: Callable[[str], str], message: str, path: Path) -> None:
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=rf"leakage\.tsv.*{message}"):
        read_table(path)
