"""Divides the chains of structure files that are not in folders of splits.

Different sequences are put in the order of their SHA-256, which is a fixed random order, and divided 80 : 10 : 10. So
copies of a chain, such as those of a homodimer, are never in two splits. Relatives may be: ``tape-leakage`` finds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tape.errors import DataError
from tape.io.structures import ProteinChain, StructureOptions, read_structures
from tape.io.text_files import ReadCallback

STRUCTURE_SPLITS = ("train", "valid", "test")
_HELD_OUT = 10  # percent of the different sequences in each of valid and test


class ChainReader:
    """Reads the chains of structure files by split.

    Args:
        options: which chains, atoms and states.
    """

    def __init__(self, options: StructureOptions) -> None:
        self._options = options
        self._files: tuple[Path, ...] = ()
        self._chains: list[ProteinChain] = []  # of these files, since all splits of an undivided folder read them

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
        split_of = _divide({chain.primary for chain in self._chains}, files[0].parent)
        yield from (chain for chain in self._chains if split_of[chain.primary] == split)


def _divide(sequences: Iterable[str], folder: Path) -> dict[str, str]:
    """Sequence -> its split."""
    ordered = sorted(sequences, key=lambda sequence: hashlib.sha256(sequence.encode()).digest())
    if len(ordered) < len(STRUCTURE_SPLITS):
        raise DataError(
            f"{folder}: {len(ordered)} different protein chains, too few for the splits {', '.join(STRUCTURE_SPLITS)};"
            " put the files into folders of these names"
        )
    held_out = max(1, len(ordered) * _HELD_OUT // 100)
    names = ["valid"] * held_out + ["test"] * held_out
    names += ["train"] * (len(ordered) - len(names))
    return dict(zip(ordered, names, strict=True))
