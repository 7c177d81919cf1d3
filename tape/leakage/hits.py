"""The alignment of a test protein that counts: the one of the highest identity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hit:
    """An alignment of a test protein with a training protein.

    Attributes:
        identifier: id of the training protein.
        identity: identical positions over columns of the alignment, gaps included, in percent.
        coverage: aligned residues of the test protein, from the first to the last, over its length, in percent.
    """

    identifier: str
    identity: float
    coverage: float


def better_hit(one: Hit | None, other: Hit) -> Hit:
    """The hit with the higher identity; with the same, that with the higher coverage; otherwise the first."""
    if one is None or (other.identity, other.coverage) > (one.identity, one.coverage):
        return other
    return one
