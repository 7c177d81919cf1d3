"""Sequences with known identities."""

from __future__ import annotations

import random

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def random_sequence(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices(RESIDUES, k=length))


def mutated(sequence: str, every: int) -> str:
    """Every ``every``-th residue replaced, the first and the last ones kept."""
    positions = range(every // 2, len(sequence) - 1, every)
    letters = list(sequence)
    for position in positions:
        letters[position] = RESIDUES[(RESIDUES.index(letters[position]) + 7) % 20]
    return "".join(letters)


def variants(wild_type: str, number: int, most: int = 5) -> list[str]:
    """Different variants with 1 to ``most`` substitutions; the wild type is not one of them."""
    chance, made = random.Random(wild_type), set[str]()
    while len(made) < number:
        letters = list(wild_type)
        for place in chance.sample(range(len(wild_type)), chance.randint(1, most)):
            letters[place] = chance.choice(RESIDUES.replace(wild_type[place], ""))
        made.add("".join(letters))
    return sorted(made)


QUERY = random_sequence(200, 1)
# id -> (sequence, identity to QUERY, coverage of QUERY)
RELATIVES: dict[str, tuple[str, float, float]] = {
    "tenth": (mutated(QUERY, 10), 90.0, 100.0),
    "fifth": (mutated(QUERY, 5), 80.0, 100.0),
    "third": (mutated(QUERY, 4), 75.0, 100.0),
    "inserted": (QUERY[:100] + random_sequence(10, 3) + QUERY[100:], 100 * 200 / 210, 100.0),
    "half": (QUERY[:120], 100.0, 60.0),
}
