"""Blended corpora: ``--data-path 0.7 A 0.3 B`` takes seven of every ten rows from A and three from B.

The corpus of the i-th row of the run, and the index of that row in its corpus, are pure functions of i and the weights:
row j of a corpus with a share s of the rows is due at (j + 1/2) / s, and rows are ordered by when they are due
(Sainte-Laguë's apportionment). After any number of rows, every corpus has therefore contributed its share to within
about one row, and the number of consumed rows is all that a resume needs.

Every corpus has its own epochs: all its proteins are seen once, in its own order, before any is seen again, newly
packed and masked. A corpus with a large weight starts its second epoch while others are in their first. The length
of a blend is the number of rows after which every corpus has been seen completely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch.utils.data import Dataset

from tape.errors import ConfigError

from .samples import PackedProteins, PackedRow, Samples

_LONGEST_PERIOD = 1 << 20  # rows; shares are represented to one in a million


@dataclass(frozen=True)
class Blend:
    """Corpora and their weights.

    Attributes:
        prefixes: path prefixes of one or more different corpora.
        weights: one positive weight per corpus; None weights the corpora by their numbers of rows.
    """

    prefixes: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    @classmethod
    def parse(cls, words: Sequence[str], flag: str) -> Blend:
        """Read ``PREFIX``, ``PREFIX PREFIX ...`` or ``WEIGHT PREFIX WEIGHT PREFIX ...``.

        Raises:
            ConfigError: if the words have another form; the message names ``flag``.
        """
        numbers = [_number(word) for word in words]
        if all(number is None for number in numbers):
            prefixes, weights = tuple(words), None
        elif len(words) % 2 or None in numbers[::2]:
            raise ConfigError(f"{flag} takes PREFIX, or WEIGHT PREFIX for each corpus, not {' '.join(words)}")
        else:
            prefixes, weights = tuple(words[1::2]), tuple(number for number in numbers[::2] if number is not None)
        twice = [prefix for prefix in prefixes if prefixes.count(prefix) > 1]
        if twice:
            raise ConfigError(f"{flag} names {twice[0]} twice")
        if weights is not None and not all(0.0 < weight < math.inf for weight in weights):
            raise ConfigError(f"{flag}: weights must be above 0, not {' '.join(words[::2])}")
        return cls(prefixes, weights)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def whole_shares(weights: Sequence[float]) -> list[int]:
    """Rows per corpus in one period of the blend: small integers in the proportions of ``weights``.

    They are exact if a period of up to a million rows allows it (0.7 and 0.3 give 7 and 3), otherwise rounded to one in
    a million.

    Raises:
        ConfigError: if a weight is less than a millionth of the total.
    """
    exact = [Fraction(repr(float(weight))) for weight in weights]
    whole = [int(share * math.lcm(*(share.denominator for share in exact))) for share in exact]
    whole = [share // math.gcd(*whole) for share in whole]
    if sum(whole) <= _LONGEST_PERIOD:
        return whole
    rounded = [round(Fraction(share, sum(whole)) * _LONGEST_PERIOD) for share in whole]
    if not min(rounded):
        raise ConfigError(
            f"a weight of {min(weights):g} beside {max(weights):g} is too small: less than 1 in a million"
        )
    return rounded


def due_order(rows: Sequence[int], shares: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The order in which ``rows[d]`` rows of each corpus d are due.

    Returns:
        (corpus of each row, index of the row in that corpus), both of shape (sum of rows,), int32.
    """
    corpus = np.repeat(np.arange(len(rows), dtype=np.int32), rows)
    number = np.concatenate([np.arange(count, dtype=np.int32) for count in rows])
    due = np.concatenate([(np.arange(count) + 0.5) / share for count, share in zip(rows, shares, strict=True)])
    order = np.argsort(due, kind="stable")
    return corpus[order], number[order]


class BlendedProteins(Dataset[PackedRow]):
    """The rows of several corpora, interleaved by weight; ``dataset[i]`` is the i-th row since the start of training.

    Args:
        parts: the rows of each corpus. Either all repeat (training) or none does (evaluation: every row of every corpus
            once, interleaved by weight until each corpus is exhausted).
        weights: one weight per corpus; None weights them by their numbers of rows.

    Raises:
        ConfigError: if a weight is too small.
    """

    def __init__(self, parts: Sequence[PackedProteins], weights: Sequence[float] | None = None) -> None:
        self.parts = tuple(parts)
        self._rows = [len(part) for part in parts]
        self._shares = tuple(whole_shares(weights or self._rows))
        self._repeat = parts[0].repeat
        self._order, self._number = due_order(self._shares if self._repeat else self._rows, self._shares)

    def __len__(self) -> int:
        """Number of rows after which every corpus has been seen completely."""
        if not self._repeat:
            return len(self._order)
        return max(self.rows_until_seen(part) for part in range(len(self.parts)))

    def __getitem__(self, sample: int) -> PackedRow:
        part, index = self.source(sample)
        return part[index]

    def source(self, sample: int) -> tuple[PackedProteins, int]:
        """The corpus of a row and the row's index in it."""
        period, place = divmod(sample, len(self._order)) if self._repeat else (0, sample)
        part = int(self._order[place])
        return self.parts[part], period * self._shares[part] + int(self._number[place])

    @property
    def shares(self) -> tuple[int, ...]:
        return self._shares

    def prepare(self, sample: int) -> None:
        """Plan the current epoch of each corpus ahead of time."""
        for number, part in enumerate(self.parts):
            part.prepare(self._taken(number, sample))

    def rows_until_seen(self, part: int) -> int:
        """Rows of the blend after which every protein of a corpus has been seen once."""
        period, last = divmod(self._rows[part] - 1, self._shares[part])
        places = np.flatnonzero(self._order == part)
        return period * len(self._order) + int(places[last]) + 1

    @property
    def attended_length(self) -> float:
        """Mean over the corpora, weighted by their shares of the rows."""
        return float(np.average([part.attended_length for part in self.parts], weights=self._shares))

    def _taken(self, part: int, sample: int) -> int:
        """Rows of a corpus among the first ``sample`` rows."""
        period, place = divmod(sample, len(self._order))
        return period * self._shares[part] + int((self._order[:place] == part).sum())


def describe(samples: Samples) -> list[str]:
    """One line per corpus that describes the training data."""
    lines = []
    for number, part in enumerate(samples.parts):
        words = describe_rows(part, " per epoch")
        if isinstance(samples, BlendedProteins):
            share = samples.shares[number] / sum(samples.shares)
            words = f"{part.corpus.prefix}: {share:.2%} of the rows; {words}, seen"
            words += f" after {samples.rows_until_seen(number):,} rows"
        lines.append(words)
    return lines


def describe_rows(part: PackedProteins, per: str = "") -> str:
    """The numbers of proteins and rows of a corpus, and of the proteins that are longer than a row.

    Args:
        part: the rows of the corpus.
        per: follows the number of rows.
    """
    long, rule = part.planner.long_documents, part.config.long_documents
    words = f"{len(part.planner.sizes):,} proteins in {len(part):,} rows{per}"
    return words + (f", {long:,} longer than a row are {'truncated' if rule == 'truncate' else rule}" if long else "")
