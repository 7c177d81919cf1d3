"""Exact alignments with Biopython: known identities, the conditions of a hit, and their limits."""

from __future__ import annotations

import sys

import pytest

from tape.errors import ConfigError
from tape.leakage import alignment
from tape.leakage.alignment import search_exact
from tape.leakage.config import SearchSettings
from tape.leakage.hits import Hit
from tape.leakage.proteins import Protein
from tests.support.known_identities import QUERY, mutated, random_sequence

SETTINGS = SearchSettings()


@pytest.fixture(autouse=True)
def _needs_biopython(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("Bio")


def test_identity_is_that_of_the_made_alignment(
    relative: tuple[Protein, float, float], unrelated: list[Protein]
) -> None:
    protein, identity, coverage = relative
    (hit,) = search_exact([QUERY], [*unrelated, protein], SETTINGS)
    assert hit is not None
    assert (hit.identifier, hit.coverage) == (protein.identifier, coverage)
    assert hit.identity == pytest.approx(identity)


def test_the_hit_of_the_highest_identity_is_kept(unrelated: list[Protein]) -> None:
    proteins = [Protein("a", mutated(QUERY, 5)), Protein("b", mutated(QUERY, 10)), Protein("c", mutated(QUERY, 4))]
    hits = search_exact([QUERY, random_sequence(200, 7)], [*proteins, *unrelated], SETTINGS)
    assert hits[0] is not None
    assert hits[0].identifier == "b"
    assert hits[1] is None


def test_an_alignment_of_less_than_half_of_the_test_protein_does_not_count() -> None:
    proteins = [Protein("x", QUERY[:80])]
    assert search_exact([QUERY], proteins, SETTINGS) == [None]
    assert search_exact([QUERY], proteins, SearchSettings(coverage=0.3)) == [Hit("x", 100.0, 40.0)]


def test_short_alignments_are_not_significant_but_identical_sequences_count() -> None:
    proteins = [Protein("x", "AGSA"), Protein("y", "AGSK")]
    assert search_exact(["AGSA", "AGSN"], proteins, SETTINGS) == [Hit("x", 100.0, 100.0), None]
    assert search_exact(["AGSN"], proteins, SearchSettings(e_value=1e3)) != [None]


def test_rare_letters_are_aligned() -> None:
    query = QUERY[:100] + "UOXBZ" + QUERY[100:]
    (hit,) = search_exact([query], [Protein("x", mutated(query, 10))], SETTINGS)
    assert hit is not None


def test_too_many_pairs_are_refused_with_the_program_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "MOST_CELLS", 200 * 199)
    with pytest.raises(ConfigError, match=r"would take about .* hours: use apt install mmseqs2"):
        search_exact([QUERY], [Protein("x", QUERY)], SETTINGS)


def test_without_biopython_both_ways_to_search_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Bio", None)
    with pytest.raises(ConfigError, match=r"apt install mmseqs2.*pip install 'proteinlm\[leakage\]'"):
        search_exact([QUERY], [], SETTINGS)
