"""Divides the chains of structure files that are not in folders of splits.

The splits are drawn 80 : 10 : 10 from the different sequences, always with the same seed. So copies of a chain, such as
those of a homodimer, are never in two splits. Relatives may be: ``tape-leakage`` finds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tape.errors import DataError, print_notice
from tape.io.structures import ProteinChain, StructureOptions, read_structures
from tape.io.text_files import ReadCallback
from tape.similarity.splits import DEFAULT_FRACTIONS, SPLITS, draw_splits

STRUCTURE_SPLITS = SPLITS
_SEED = 42


class ChainReader:
    """Reads the chains of structure files by split.

    Args:
        options: which chains, atoms and states.
    """

    def __init__(self, options: StructureOptions) -> None:
        self._options = options
        self._files: tuple[Path, ...] = ()
        self._chains: list[ProteinChain] = []  # of these files, since all splits of an undivided folder read them
        self._split_of: dict[str, str] = {}  # sequence -> its split

    def read(self, files: tuple[Path, ...], split: str | None, progress: ReadCallback) -> Iterator[ProteinChain]:
        """Yield the chains of one split, in the order of the files.

        Args:
            files: the structure files.
            split: one of :data:`STRUCTURE_SPLITS`, if the files are those of all splits; None: all chains.
            progress: called with the number of bytes just read from a file.

        Raises:
            DataError: a file can't be used, or there are fewer than three different sequences to divide.
        """
        if split is None:
            yield from read_structures(files, self._options, progress)
            return
        if files != self._files:
            self._files, self._chains = files, list(read_structures(files, self._options, progress))
            self._split_of = _draw({chain.primary for chain in self._chains}, files[0].parent)
        yield from (chain for chain in self._chains if self._split_of[chain.primary] == split)


def _draw(sequences: Iterable[str], folder: Path) -> dict[str, str]:
    """Sequence -> its split; prints how many are in each."""
    ordered = sorted(sequences)
    try:
        split_of = dict(zip(ordered, draw_splits(ordered, DEFAULT_FRACTIONS, _SEED), strict=True))
    except DataError as error:
        raise DataError(f"{folder}: {error}; put the files into folders of these names") from None
    counts = Counter(split_of.values())
    drawn = ", ".join(f"{name} {counts[name]}" for name in SPLITS)
    print_notice(f"note: {folder}: drew the splits of {len(ordered)} different sequences: {drawn}")
    return split_of
