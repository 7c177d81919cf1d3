"""Recognizing nucleotide sequences among proteins: A, C, G, T, U and N are also letters of amino acids.

In proteins, these letters are about a quarter of all residues.
"""

from __future__ import annotations

import logging
import os

from tape.errors import DataError
from tape.io.text_files import display_name, split_suffix

from .formats import NUCLEOTIDE_SUFFIXES

logger = logging.getLogger(__name__)

LETTERS = "ACGTUN"
MOST_IN_PROTEINS = 0.95  # fraction of the letters
_FEWEST_LETTERS = 50  # of a file, below which nothing is concluded
_LEAST_OF_EACH = 0.01  # fraction of A, C, G, and T or U: poly-alanine is a protein
_LETTERS_AT_A_TIME = 1 << 16
ENOUGH_LETTERS = 1 << 20  # of a file, after which the rest is not counted


class NucleotideCounter:
    """Counts the letters of nucleotides in the sequences of a file, up to :data:`ENOUGH_LETTERS`."""

    def __init__(self) -> None:
        self.letters = 0
        self._counts = dict.fromkeys(LETTERS, 0)
        self._pending: list[str] = []  # sequences that are counted together, which is faster
        self._pending_letters = 0

    def add(self, sequence: str) -> None:
        """Count one sequence, unless enough have been counted."""
        if self.letters < ENOUGH_LETTERS:
            self._pending.append(sequence)
            self._pending_letters += len(sequence)
            if self._pending_letters >= _LETTERS_AT_A_TIME:
                self._count()

    def _count(self) -> None:
        text = "".join(self._pending)
        self.letters += len(text)
        for letter in LETTERS:
            self._counts[letter] += text.count(letter) + text.count(letter.lower())
        self._pending, self._pending_letters = [], 0

    @property
    def are_nucleotides(self) -> bool:
        """Whether almost all letters are those of nucleotides, and all kinds of them occur."""
        self._count()
        counts = self._counts
        kinds = (counts["A"], counts["C"], counts["G"], counts["T"] + counts["U"])
        return (
            self.letters >= _FEWEST_LETTERS
            and sum(counts.values()) >= MOST_IN_PROTEINS * self.letters
            and min(kinds) >= _LEAST_OF_EACH * self.letters
        )

    def problem(self, path: str | os.PathLike[str]) -> str | None:
        """What shows that ``path`` has nucleotides: its suffix, or the letters counted; None if nothing does."""
        suffix = split_suffix(path)[0]
        if suffix in NUCLEOTIDE_SUFFIXES:
            return f"{display_name(path)}: {suffix} is the suffix of nucleotide sequences"
        if self.are_nucleotides:
            return f"{display_name(path)}: almost all letters are A, C, G, T, U or N, as in nucleotide sequences"
        return None

    def warn(self, path: str | os.PathLike[str]) -> None:
        """Log a warning if ``path`` has nucleotides."""
        problem = self.problem(path)
        if problem is not None:
            logger.warning("%s; translate them to proteins first, or the results are meaningless", problem)

    def refuse(self, path: str | os.PathLike[str]) -> None:
        """Refuse ``path`` if it has nucleotides.

        Raises:
            DataError: it has. Names the option that allows them.
        """
        problem = self.problem(path)
        if problem is not None:
            raise DataError(f"{problem}; translate them to proteins first, or give --allow-nucleotides")
