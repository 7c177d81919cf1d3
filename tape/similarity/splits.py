"""Drawing splits of proteins. All splits that are drawn, of tables and of structure files, are drawn here.

Groups stay together: a sequence and its copies, or a whole cluster of related sequences. They are taken in random
order, class by class, so that every split has its share of a class; those that are larger than the smallest split is to
be come first, the largest before the others, so that smaller ones can make up for them. Each goes to the split that
lacks the most of its share of what has been taken so far. So no split exceeds its size by more than one group, and
large groups are training data as a rule, where they take the least of the variety of the test proteins.

Sizes are numbers of different sequences; copies do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tape.errors import DataError

SPLITS = ("train", "valid", "test")
SPLIT_SYNONYMS = {
    "training": "train",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "testing": "test",
}
DEFAULT_FRACTIONS = (80.0, 10.0, 10.0)


def draw_splits(
    proteins: Sequence[str],
    fractions: Sequence[float],
    seed: int,
    clusters: Sequence[int] | None = None,
    classes: Sequence[object] | None = None,
) -> list[str]:
    """Draw the split of each protein.

    Args:
        proteins: sequence, or its digest, of N proteins; equal ones are copies.
        fractions: relative sizes of SPLITS, of at least 0; a split of size 0 gets no protein, and any other at least
            one.
        seed: seed of the order.
        clusters: (N,) cluster of each protein, which gets one split; None: only copies get one.
        classes: (N,) class of each protein, of which every split gets its share as far as the clusters allow; None:
            there are no classes. That of a cluster is the most frequent one in it.

    Returns:
        N names of SPLITS.

    Raises:
        DataError: there are fewer groups than splits. States both numbers.
    """
    first: dict[str, int] = {}
    for place, protein in enumerate(proteins):
        first.setdefault(protein, place)
    members: dict[int, list[int]] = {}
    for place in first.values():
        members.setdefault(place if clusters is None else int(clusters[place]), []).append(place)
    groups = list(members.values())
    shares = np.asarray(fractions, dtype=np.float64) / sum(fractions)
    wanted = [name for name, share in zip(SPLITS, shares, strict=True) if share]
    if len(groups) < len(wanted):
        found = f"{len(first)} different sequences"
        if clusters is not None:
            found = f"{'1 cluster' if len(groups) == 1 else f'{len(groups)} clusters'} of {found}"
        raise DataError(f"{len(wanted)} splits ({', '.join(wanted)}) can't be drawn from {found}")
    names = ["" if classes is None else _most_frequent([str(classes[place]) for place in group]) for group in groups]
    sizes = [len(group) for group in groups]
    split_of: dict[str, str] = {}
    for group, split in _fill(_order(sizes, names, shares, seed), sizes, shares):
        split_of.update((proteins[place], SPLITS[split]) for place in groups[group])
    return [split_of[protein] for protein in proteins]


def _most_frequent(names: Sequence[str]) -> str:
    return Counter(names).most_common(1)[0][0]  # the first of several


def _order(sizes: Sequence[int], classes: Sequence[str], shares: np.ndarray, seed: int) -> list[int]:
    """Numbers of the groups in the order in which they are taken."""
    totals: Counter[str] = Counter()
    for size, name in zip(sizes, classes, strict=True):
        totals[name] += size
    smallest = float(shares[shares > 0].min())

    def rank(group: int) -> tuple[str, int]:
        name, size = classes[group], sizes[group]
        return name, -size if size > smallest * totals[name] else 0

    order: list[int] = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    return sorted(order, key=rank)  # stable: groups of one rank stay in random order


def _fill(order: Sequence[int], sizes: Sequence[int], shares: np.ndarray) -> list[tuple[int, int]]:
    """(group, number of its split) of each group, in their order."""
    counts, taken = np.zeros(len(shares)), 0
    chosen: list[tuple[int, int]] = []
    for place, group in enumerate(order):
        taken += sizes[group]
        lacking = shares * taken - counts
        empty = (shares > 0) & (counts == 0)
        if len(order) - place <= empty.sum():  # each of the last groups is needed for a split that has none
            lacking = np.where(empty, lacking, -np.inf)
        split = int(np.argmax(lacking))
        counts[split] += sizes[group]
        chosen.append((group, split))
    return chosen
