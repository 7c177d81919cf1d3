"""Near copies of a protein, such as the variants of a mutational scan.

Programs that search for relatives align every pair of them, which takes many minutes for thousands of variants of one
protein, and the most hits that they keep of each query leave no room for its other relatives. A few near copies find
the same relatives as all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

IDENTITY = 0.9  # lowest identity of near copies, without gaps and over their whole length
SEARCHED = 20  # near copies of one protein that are searched with


class NearCopies(NamedTuple):
    """Which of N proteins to search with, and which are linked to those without a search.

    Attributes:
        searched: (S,) int64, ascending places of the proteins to search with.
        left_out: (N - S,) int64, places of the others.
        leaders: (N - S,) int64, for each of those a place in ``searched`` of which it is a near copy.
    """

    searched: np.ndarray
    left_out: np.ndarray
    leaders: np.ndarray


def find_near_copies(sequences: Sequence[str], identity: float = IDENTITY) -> NearCopies:
    """Leave out near copies of which there are more than a search needs.

    Proteins of equal length are grouped around leaders, in alphabetical order, so that the result does not depend on
    theirs. Of each group, the first SEARCHED remain.

    Args:
        sequences: N different sequences of ASCII letters.
        identity: lowest share of equal residues at the same positions.
    """
    letters = [np.frombuffer(sequence.encode("ascii"), dtype=np.uint8) for sequence in sequences]
    lengths = np.array([len(sequence) for sequence in letters], dtype=np.int64)
    left_out: list[np.ndarray] = []
    leaders: list[np.ndarray] = []
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        if count <= SEARCHED:
            continue
        places = np.array(sorted(np.flatnonzero(lengths == length), key=lambda place: sequences[place]))
        residues = np.stack([letters[place] for place in places])
        while len(places) > SEARCHED:
            is_near = (residues == residues[0]).sum(axis=1) >= identity * length
            spare = places[is_near][SEARCHED:]
            left_out.append(spare)
            leaders.append(np.full(len(spare), places[0]))
            places, residues = places[~is_near], residues[~is_near]
    none = np.empty(0, dtype=np.int64)
    all_left_out = np.concatenate([none, *left_out])
    return NearCopies(
        np.setdiff1d(np.arange(len(sequences)), all_left_out), all_left_out, np.concatenate([none, *leaders])
    )
