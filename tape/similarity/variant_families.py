"""Families of variants in a set without wild types, such as TAPE's test set of stability.

The variants of one protein have the same length and few substitutions, so that the most frequent residue at each
position is the wild type's. A protein of other variants is not near, which a set of unrelated proteins shows. Two wild
types that differ from each other in no more positions than a variant may from its own (:data:`MOST_SUBSTITUTIONS`, or a
quarter of the residues) are not told apart: their variants are one family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tape.errors import DataError

MOST_SUBSTITUTIONS = 15  # in a variant of TAPE's fluorescence set
SMALLEST_FAMILY = 10
_LARGEST_SHARE = 4  # of the residues may be substituted: one in four
_MOST_GROUPS = 1000
_ITERATIONS = 10
_WORD = 5  # residues


@dataclass(frozen=True)
class Family:
    """The variants of one protein.

    Attributes:
        wild_type: (L,) the most frequent token at each position.
        members: indices of the variants in the set.
        substitutions: (members,) number of positions at which each differs from the wild type.
        shifted: indices of the variants with deletions or insertions, which have no score from substitutions.
    """

    wild_type: np.ndarray
    members: np.ndarray
    substitutions: np.ndarray
    shifted: np.ndarray


@dataclass(frozen=True)
class Families:
    """All families of a set, the largest first; each protein is in one.

    Attributes:
        families: those of at least :data:`SMALLEST_FAMILY` variants.
        small: those of fewer, whose wild type is uncertain, down to a single protein.
    """

    families: tuple[Family, ...]
    small: tuple[Family, ...]

    @property
    def shifted(self) -> int:
        """Number of variants with deletions or insertions."""
        return sum(len(family.shifted) for family in self.families)

    @property
    def single(self) -> int:
        """Number of variants in small families."""
        return sum(len(family.members) for family in self.small)

    def numbers(self, proteins: int) -> np.ndarray:
        """(proteins,) number of each protein's family, from 1, the largest first."""
        numbers = np.zeros(proteins, dtype=np.int64)
        for number, family in enumerate((*self.families, *self.small), start=1):
            numbers[family.members] = numbers[family.shifted] = number
        return numbers


def find_families(proteins: Sequence[np.ndarray], where: str) -> Families:
    """Divide a set into families.

    Args:
        proteins: letters of each protein, or its token ids without special tokens, as integers.
        where: name of the set, for messages.

    Raises:
        DataError: there is no family, or the set has too many proteins that are no variants of each other.
    """
    lengths = np.array([len(protein) for protein in proteins])
    groups: list[Family] = []
    for length in np.unique(lengths):
        indices = np.flatnonzero(lengths == length)
        tokens = np.stack([proteins[index] for index in indices])
        while indices.size:
            if len(groups) == _MOST_GROUPS:
                raise DataError(f"{where}: more than {_MOST_GROUPS} families, so not a set of variants of few proteins")
            wild_type, distances = _nearest_wild_type(tokens)
            near = distances <= _radius(int(length))
            groups.append(Family(wild_type, indices[near], distances[near], np.empty(0, dtype=np.int64)))
            indices, tokens = indices[~near], tokens[~near]
    groups.sort(key=lambda group: -len(group.members))
    families: list[Family] = []
    small: list[Family] = []
    for group in groups:
        place = next((place for place, family in enumerate(families) if _is_shifted(group, family)), None)
        if place is not None:
            shifted = np.concatenate([families[place].shifted, group.members])
            families[place] = replace(families[place], shifted=shifted)
        elif len(group.members) < SMALLEST_FAMILY:
            small.append(group)
        else:
            families.append(group)
    if not families:
        raise DataError(f"{where}: no {SMALLEST_FAMILY} of its proteins are variants of one protein")
    return Families(tuple(families), tuple(small))


def _radius(length: int) -> int:
    return min(MOST_SUBSTITUTIONS, length // _LARGEST_SHARE)


def _nearest_wild_type(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The wild type of the first protein's family, and each protein's distance from it.

    Starts with the first protein itself, which is in the result: if the wild type moves too far away from it, it is a
    family of its own.
    """
    wild_type = tokens[0]
    distances = (tokens != wild_type).sum(axis=1)
    for _ in range(_ITERATIONS):
        consensus = _consensus(tokens[distances <= _radius(tokens.shape[1])])
        if (consensus == wild_type).all():
            break
        wild_type, distances = consensus, (tokens != consensus).sum(axis=1)
    if distances[0] > _radius(tokens.shape[1]):
        return tokens[0], np.where(np.arange(len(tokens)) == 0, 0, tokens.shape[1])
    return wild_type, distances


def _consensus(tokens: np.ndarray) -> np.ndarray:
    return np.array([np.bincount(column).argmax() for column in tokens.T], dtype=tokens.dtype)


def _is_shifted(group: Family, family: Family) -> bool:
    """Whether a group of another length has most of its words in common with a family: its variants have a gap."""
    if len(group.wild_type) == len(family.wild_type):
        return False
    words = _words(group.wild_type)
    return 2 * len(words & _words(family.wild_type)) > len(words)


def _words(tokens: np.ndarray) -> set[bytes]:
    return {tokens[start : start + _WORD].tobytes() for start in range(len(tokens) - _WORD + 1)}
