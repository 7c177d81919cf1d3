"""Searching with MMseqs2: the program itself where it is installed, and a stand-in for the command that is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import ProteinLMError
from tape.leakage.config import SearchSettings
from tape.leakage.hits import Hit
from tape.leakage.mmseqs import mmseqs_options, search_mmseqs
from tape.leakage.proteins import Protein
from tape.similarity.mmseqs import find_mmseqs
from tests.support.known_identities import QUERY, mutated, random_sequence

SETTINGS = SearchSettings()


@pytest.fixture
def mmseqs() -> str:
    program = find_mmseqs()
    if program is None:
        pytest.skip("needs MMseqs2: apt install mmseqs2")
    return program


def test_identity_is_that_of_the_made_alignment(
    mmseqs: str, relative: tuple[Protein, float, float], unrelated: list[Protein]
) -> None:
    protein, identity, coverage = relative
    hits = search_mmseqs(mmseqs, [QUERY, random_sequence(200, 7)], [*unrelated, protein], SETTINGS)
    assert hits[0] is not None
    assert hits[0].identifier == protein.identifier
    assert hits[0].identity == pytest.approx(identity)
    assert hits[0].coverage == pytest.approx(coverage, abs=0.1)
    assert hits[1] is None


def test_the_conditions_of_a_hit_are_kept(mmseqs: str) -> None:
    proteins = [Protein("x", QUERY[:80]), Protein("sp|P83570|NAME", "ACDEFG")]
    assert search_mmseqs(mmseqs, [QUERY, "ACDEFG"], proteins, SETTINGS) == [None, Hit("sp|P83570|NAME", 100.0, 100.0)]
    (hit,) = search_mmseqs(mmseqs, [QUERY], proteins, SearchSettings(coverage=0.3))
    assert hit is not None


def test_proteins_that_are_too_short_to_be_found_are_no_error(mmseqs: str) -> None:
    """Nor is the protein that is added to them a hit."""
    assert search_mmseqs(mmseqs, [QUERY, "ACDEFGHIKLMNPQRSTVWY"], [Protein("a", "MKT")], SETTINGS) == [None, None]


def test_the_best_hit_of_each_query_is_read(fake_mmseqs: Path) -> None:
    proteins = [
        Protein("far", mutated(QUERY, 4)),
        Protein("near one|x", mutated(QUERY, 10)),
        Protein("other", random_sequence(200, 8)),
    ]
    hits = search_mmseqs(str(fake_mmseqs), [QUERY, "WWWW", proteins[2].residues], proteins, SETTINGS)
    assert hits == [Hit("near one|x", 90.0, 100.0), None, Hit("other", 100.0, 100.0)]
    words = (fake_mmseqs.parent / "arguments").read_text().splitlines()
    assert words[0] == "easy-search"
    options = [*mmseqs_options(SETTINGS), "--threads", "1"]
    assert words[5 : 5 + len(options)] == options
    assert words[-2:] == ["--format-output", "query,target,nident,alnlen,qcov,theader"]


def test_queries_that_are_all_in_the_training_data_need_no_search(fake_mmseqs: Path) -> None:
    assert search_mmseqs(str(fake_mmseqs), ["ACDC"], [Protein("x", "ACDC")], SETTINGS) == [Hit("x", 100.0, 100.0)]
    assert not (fake_mmseqs.parent / "arguments").exists()


def test_a_failure_shows_the_end_of_the_output(fake_mmseqs: Path) -> None:
    (fake_mmseqs.parent / "fail").touch()
    with pytest.raises(ProteinLMError, match=r"MMseqs2 failed \(exit code 3\)") as caught:
        search_mmseqs(str(fake_mmseqs), [QUERY], [Protein("x", "ACDC")], SETTINGS)
    assert list(caught.value.details) == ["Can not allocate memory"]


def test_an_unreadable_table_is_an_error(tmp_path: Path) -> None:
    program = tmp_path / "mmseqs"
    program.write_text('#!/bin/sh\necho "0 nothing" > "$4"\n')
    program.chmod(0o755)
    with pytest.raises(ProteinLMError, match=r"MMseqs2 wrote '0 nothing', not query, target, nident"):
        search_mmseqs(str(program), [QUERY], [Protein("x", "ACDC")], SETTINGS)
