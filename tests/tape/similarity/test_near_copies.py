"""Near copies, of which a search for relatives needs a few."""

from __future__ import annotations

import numpy as np
import pytest

from tape.similarity import near_copies
from tape.similarity.clusters import cluster_proteins
from tape.similarity.near_copies import SEARCHED, find_near_copies
from tests.support.known_identities import random_sequence, variants
from tests.tape.similarity.test_clusters import METHODS

LENGTH = 120


def test_of_many_near_copies_a_few_are_searched() -> None:
    wild_types = [random_sequence(LENGTH, 1), random_sequence(LENGTH, 2)]
    sequences = [*wild_types, *variants(wild_types[0], 80), *variants(wild_types[1], SEARCHED // 2)]
    found = find_near_copies(sequences)
    assert sorted([*found.searched, *found.left_out]) == list(range(len(sequences)))
    assert len(found.left_out) == 81 - SEARCHED
    assert set(found.leaders) <= set(found.searched)
    for one, leader in zip(found.left_out, found.leaders, strict=True):
        differences = sum(a != b for a, b in zip(sequences[one], sequences[leader], strict=True))
        assert differences <= LENGTH // 10


def test_few_near_copies_and_other_proteins_are_all_searched() -> None:
    sequences = [random_sequence(LENGTH, seed) for seed in range(3 * SEARCHED)]
    sequences += variants(sequences[0], SEARCHED - 1)
    assert find_near_copies(sequences).searched.tolist() == list(range(len(sequences)))
    assert find_near_copies([]).searched.tolist() == []


def test_the_choice_does_not_depend_on_the_order() -> None:
    sequences = variants(random_sequence(LENGTH, 1), 60)
    first = {sequences[place] for place in find_near_copies(sequences).searched}
    assert {sequences[::-1][place] for place in find_near_copies(sequences[::-1]).searched} == first


def test_near_copies_are_no_nearer_than_asked() -> None:
    sequences = variants(random_sequence(LENGTH, 1), 60)
    assert len(find_near_copies(sequences, 0.99).left_out) == 0


@pytest.mark.parametrize("method", METHODS)
def test_clusters_are_those_of_a_search_with_all(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for relatives of near copies, and for proteins without relatives."""
    wild_types = [random_sequence(LENGTH, seed) for seed in (1, 2)]
    relative = "".join(a if n % 5 else b for n, (a, b) in enumerate(zip(*wild_types, strict=True)))  # of the first
    sequences = [*variants(wild_types[0], 50), *variants(wild_types[1], 40), relative, random_sequence(200, 9)]
    sequences = [sequences[place] for place in np.random.default_rng(1).permutation(len(sequences))]
    found = cluster_proteins(sequences, method=method)
    assert found.count == 3
    assert found.method.endswith(
        ", and of 50 near copies (identity >= 0.9 without gaps) with the protein that they are copies of"
    )
    monkeypatch.setattr(near_copies, "SEARCHED", 1000)
    assert cluster_proteins(sequences, method=method).labels.tolist() == found.labels.tolist()
