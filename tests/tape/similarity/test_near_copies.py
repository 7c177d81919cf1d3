"""Near copies, of which a search for relatives needs a few."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tape.similarity import near_copies
from tape.similarity.clusters import cluster_proteins
from tape.similarity.near_copies import SEARCHED, find_near_copies
from tests.support.known_identities import RESIDUES, random_sequence, variants
from tests.tape.similarity.test_clusters import METHODS

LENGTH = 120


def test_of_many_near_copies_a_few_are_searched() -> None:
    wild_types = [random_sequence(LENGTH, 1), random_sequence(LENGTH, 2)]
    sequences = [*wild_types, *variants(wild_types[0], 80), *variants(wild_types[1], SEARCHED // 2)]
    found = find_near_copies(sequences)
    assert len(found.searched) == len(sequences) - (81 - SEARCHED)
    assert len(set(found.copies)) == len(found.copies)
    assert len(found.copies) == len(sequences) - 2
    assert set(found.leaders) <= set(found.searched)
    for one, leader in zip(found.copies, found.leaders, strict=True):
        differences = sum(a != b for a, b in zip(sequences[one], sequences[leader], strict=True))
        assert differences <= LENGTH // 10


def test_few_near_copies_and_other_proteins_are_all_searched() -> None:
    sequences = [random_sequence(LENGTH, seed) for seed in range(3 * SEARCHED)]
    sequences += variants(sequences[0], SEARCHED - 1)
    found = find_near_copies(sequences)
    assert found.searched.tolist() == list(range(len(sequences)))
    assert len(found.copies) == SEARCHED - 1
    assert find_near_copies([]).searched.tolist() == []


def test_unknown_residues_are_not_equal() -> None:
    sequences = [random_sequence(9, seed) + "X" * 91 for seed in range(60)]
    found = find_near_copies(sequences)
    assert len(found.copies) == 0
    assert len(found.searched) == 60


def test_the_choice_does_not_depend_on_the_order() -> None:
    sequences = variants(random_sequence(LENGTH, 1), 60)
    first = {sequences[place] for place in find_near_copies(sequences).searched}
    assert {sequences[::-1][place] for place in find_near_copies(sequences[::-1]).searched} == first


def test_near_copies_are_no_nearer_than_asked() -> None:
    sequences = variants(random_sequence(LENGTH, 1), 60)
    for one, leader in zip(*find_near_copies(sequences, 0.99)[:2], strict=True):
        assert sum(a != b for a, b in zip(sequences[one], sequences[leader], strict=True)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_clusters_are_those_of_a_search_with_all(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for relatives of near copies, and for proteins without relatives."""
    wild_types = [random_sequence(LENGTH, seed) for seed in (1, 2)]
    relative = "".join(a if n % 5 else b for n, (a, b) in enumerate(zip(*wild_types, strict=True)))  # of the first
    sequences = [*variants(wild_types[0], 50), *variants(wild_types[1], 40), relative, random_sequence(200, 9)]
    sequences = [sequences[place] for place in np.random.default_rng(1).permutation(len(sequences))]
    found = cluster_proteins(sequences, method=method)
    assert found.count == 3
    expected = ", or identity >= 0.9 without gaps (50 of such near copies were compared with other clusters only)"
    assert found.method.endswith(expected)
    monkeypatch.setattr(near_copies, "SEARCHED", 1000)
    assert cluster_proteins(sequences, method=method).labels.tolist() == found.labels.tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("identity", "has_other"), [(0.5, False), (0.6, True), (0.7, False)])
def test_relatives_of_near_copies_that_are_left_out_are_found(
    method: str, identity: float, has_other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are similar enough to one near copy, and to no other; there may be other proteins with near copies."""
    chance, wild_type = random.Random(1), random_sequence(LENGTH, 4)

    def substituted(sequence: str, places: list[int]) -> str:
        other = {place: chance.choice(RESIDUES.replace(sequence[place], "")) for place in places}
        return "".join(other.get(place, residue) for place, residue in enumerate(sequence))

    changed = [chance.sample(range(LENGTH), 6) for _ in range(3 * SEARCHED)]
    family = [substituted(wild_type, places) for places in changed]
    relatives = []
    for member, places in zip(family, changed, strict=True):
        others = sorted(set(range(LENGTH)) - set(places))
        relatives.append(substituted(member, chance.sample(others, int(LENGTH * (1 - identity)) - 1)))
    sequences = [*family, *relatives, *(variants(random_sequence(LENGTH, 5), 2 * SEARCHED) if has_other else [])]
    found = cluster_proteins(sequences, identity, method=method)
    monkeypatch.setattr(near_copies, "SEARCHED", 1000)
    assert found.labels.tolist() == cluster_proteins(sequences, identity, method=method).labels.tolist()
    assert found.largest > len(family) + len(relatives) / 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("identity", [0.8, 0.9, 0.95])
def test_at_high_identities_no_near_copy_loses_its_relatives(method: str, identity: float) -> None:
    """A relative of a near copy need not be one of the others; every pair is compared with the threshold here."""
    wild_type = random_sequence(LENGTH, 4)
    sequences = variants(wild_type, 100, 6)
    sequences += [variants(sequence, 1, 8)[0] for sequence in sequences[:25]]
    letters = np.array([list(sequence) for sequence in sequences])
    labels = cluster_proteins(sequences, identity, method=method).labels
    identities = (letters[:, None] == letters[None]).mean(axis=2)
    assert not ((identities >= identity) & (labels[:, None] != labels[None])).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [SEARCHED - 1, SEARCHED + 1, 100])
def test_clusters_of_short_variants_do_not_depend_on_their_number(method: str, number: int) -> None:
    """MMseqs2 finds none of them."""
    wild_type = "AACADAEACA"
    scan = [wild_type[:n] + one + wild_type[n + 1 :] for n in range(10) for one in RESIDUES if one > wild_type[n]]
    found = cluster_proteins([wild_type, *scan[: number - 1]], method=method)
    assert (found.count, found.largest) == (1, number)


@pytest.mark.parametrize("method", METHODS)
def test_short_proteins_are_no_error(method: str) -> None:
    peptides = [random_sequence(8, seed) for seed in range(30)]
    assert cluster_proteins([*peptides, peptides[3]], method=method).labels.tolist() == [*range(30), 3]
