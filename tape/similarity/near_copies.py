"""Near copies of a protein, such as the variants of a mutational scan.

Programs that search for relatives align every pair of them, which takes many minutes for thousands of variants of one
protein, and the most hits that they keep of each query leave no room for its other relatives. A few near copies find
most relatives of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tape.runtime.progress import progress_bar

IDENTITY = 0.9  # lowest identity of near copies, without gaps and over their whole length
SEARCHED = 20  # near copies of one protein that are searched with
_UNKNOWN = ord("X")  # any residue, so that two of them need not be equal


class NearCopies(NamedTuple):
    """Near copies among N proteins.

    Attributes:
        copies: (C,) int64, places of the proteins that are near copies of another.
        leaders: (C,) int64, for each of those the place of the protein that it is a near copy of.
        searched: (S,) int64, ascending places of those of all N proteins that a search needs as queries.
    """

    copies: np.ndarray
    leaders: np.ndarray
    searched: np.ndarray


def find_near_copies(sequences: Sequence[str], identity: float = IDENTITY) -> NearCopies:
    """Group proteins of equal length around leaders.

    Leaders are taken in alphabetical order, so that the groups do not depend on the order of the proteins. Of each
    group, a search needs the first SEARCHED as queries.

    Args:
        sequences: N different sequences of ASCII letters.
        identity: lowest share of equal residues at the same positions; X equals nothing.
    """
    letters = [np.frombuffer(sequence.encode("ascii"), dtype=np.uint8) for sequence in sequences]
    lengths = np.array([len(sequence) for sequence in letters], dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    copies, leaders, spare = [none], [none], [none]
    with progress_bar("near copies", len(sequences), "protein") as bar:
        for length in np.unique(lengths):
            places = np.array(sorted(np.flatnonzero(lengths == length), key=lambda place: sequences[place]))
            residues = np.stack([letters[place] for place in places])
            while len(places) > 1:
                leader = residues[0]
                is_near = ((residues == leader) & (leader != _UNKNOWN)).sum(axis=1) >= identity * length
                is_near[0] = True
                near = places[is_near]
                copies.append(near[1:])
                leaders.append(np.full(len(near) - 1, near[0]))
                spare.append(near[SEARCHED:])
                places, residues = places[~is_near], residues[~is_near]
                bar.update(len(near))
            bar.update(len(places))
    searched = np.setdiff1d(np.arange(len(sequences)), np.concatenate(spare))
    return NearCopies(np.concatenate(copies), np.concatenate(leaders), searched)
