"""Finding the wild types of a set of variants."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tape.errors import DataError
from tape.similarity.variant_families import find_families

RESIDUES = 20


def protein(seed: int, length: int) -> np.ndarray:
    return np.array(random.Random(seed).choices(range(RESIDUES), k=length))


def variants(wild_type: np.ndarray, number: int, most: int, seed: int = 0) -> list[np.ndarray]:
    """Variants with 1 to ``most`` substitutions."""
    chance, made = random.Random(seed), []
    for _ in range(number):
        variant = wild_type.copy()
        for place in chance.sample(range(len(wild_type)), chance.randint(1, most)):
            variant[place] = (variant[place] + chance.randint(1, RESIDUES - 1)) % RESIDUES
        made.append(variant)
    return made


def test_wild_types_that_are_not_in_the_set_are_found() -> None:
    one, other = protein(1, 60), protein(2, 60)
    proteins = [*variants(one, 40, 6), *variants(other, 30, 3)]
    found = find_families(proteins, "set")
    assert [family.wild_type.tolist() for family in found.families] == [one.tolist(), other.tolist()]
    assert [family.members.tolist() for family in found.families] == [list(range(40)), list(range(40, 70))]
    expected = [int((protein != one).sum()) for protein in proteins[:40]]
    assert found.families[0].substitutions.tolist() == expected
    assert (found.shifted, found.single) == (0, 0)


def test_the_order_of_the_proteins_does_not_matter() -> None:
    one, other = protein(1, 60), protein(2, 60)
    proteins = [*variants(one, 40, 6), *variants(other, 30, 3)]
    found = find_families(list(reversed(proteins)), "set")
    assert [family.wild_type.tolist() for family in found.families] == [one.tolist(), other.tolist()]


def test_variants_with_deletions_are_apart_in_their_family() -> None:
    wild_type = protein(1, 100)
    deleted = [np.delete(variant, 30) for variant in variants(wild_type, 20, 2, seed=1)]
    found = find_families([*variants(wild_type, 50, 5), *deleted], "set")
    assert [len(family.members) for family in found.families] == [50]
    assert (found.shifted, found.single) == (20, 0)
    assert found.families[0].shifted.tolist() == list(range(50, 70))
    assert found.numbers(70).tolist() == [1] * 70


def test_a_protein_of_another_length_is_a_family_of_its_own() -> None:
    found = find_families([*variants(protein(1, 60), 20, 3), *variants(protein(2, 59), 15, 3)], "set")
    assert [len(family.members) for family in found.families] == [20, 15]


def test_families_of_few_variants_are_left_out() -> None:
    found = find_families([*variants(protein(1, 60), 20, 3), *variants(protein(2, 60), 9, 3)], "set")
    assert ([len(family.members) for family in found.families], found.single) == ([20], 9)
    assert found.numbers(29).tolist() == [1] * 20 + [2] * 9


def test_unrelated_proteins_are_refused() -> None:
    with pytest.raises(DataError, match="set: no 10 of its proteins are variants of one protein"):
        find_families([protein(seed, 40) for seed in range(20)], "set")
    with pytest.raises(DataError, match="set: more than 1000 families, so not a set of variants of few proteins"):
        find_families([protein(seed, 40) for seed in range(1100)], "set")
