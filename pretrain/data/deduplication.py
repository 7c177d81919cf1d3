"""Which proteins of a corpus were seen before: a set of 16-byte digests in one array, 27 to 53 bytes a protein.

The digest of a protein is BLAKE2b's over its residue ids. At 128 bits two different proteins among 10^9 share one with
probability 10^-21, so equal digests are equal proteins.
"""

from __future__ import annotations

import hashlib

import numpy as np

DIGEST_BYTES = 16
_FIRST_CAPACITY = 1 << 16
_FULLEST = 0.6  # part of the table that may be taken before it is doubled


def protein_digest(ids: np.ndarray) -> bytes:
    """Digest of one protein's residue ids, of whatever length."""
    return hashlib.blake2b(ids.tobytes(), digest_size=DIGEST_BYTES).digest()


class DigestSet:
    """A growing set of digests; open addressing with linear probing, a whole batch at a time."""

    def __init__(self) -> None:
        self._table = np.zeros((_FIRST_CAPACITY, 2), dtype=np.uint64)  # (0, 0) is an empty place
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Memory of the table."""
        return self._table.nbytes

    def add(self, digests: bytes) -> np.ndarray:
        """Add n digests, one after another.

        Returns:
            (n,) bool: True where a digest is new; of equal ones in the batch the first.
        """
        pairs = np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)
        pairs[(pairs == 0).all(axis=1), 1] = 1  # the one digest that would look like an empty place
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))  # stable: equal ones keep their order
        ordered = pairs[order]
        first = np.ones(len(pairs), dtype=bool)
        first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        new = np.zeros(len(pairs), dtype=bool)
        candidates = order[first]
        self._grow(self._size + len(candidates))
        new[candidates] = self._insert(pairs[candidates])
        self._size += int(new.sum())
        return new

    def _grow(self, size: int) -> None:
        capacity = len(self._table)
        while size > _FULLEST * capacity:
            capacity *= 2
        if capacity > len(self._table):
            taken = self._table[self._table.any(axis=1)]
            self._table = np.zeros((capacity, 2), dtype=np.uint64)
            self._insert(taken)

    def _insert(self, pairs: np.ndarray) -> np.ndarray:
        """Put distinct digests in; True where one was not there. Those that meet at a place go on one by one."""
        new = np.zeros(len(pairs), dtype=bool)
        mask = np.uint64(len(self._table) - 1)
        places = pairs[:, 0] & mask
        pending = np.arange(len(pairs))
        while len(pending):
            at, wanted = places[pending], pairs[pending]
            empty = ~self._table[at].any(axis=1)
            self._table[at[empty]] = wanted[empty]  # where several want one place, the last to write has it
            here = (self._table[at] == wanted).all(axis=1)
            new[pending] |= here & empty
            pending = pending[~here]
            places[pending] = (places[pending] + np.uint64(1)) & mask
        return new
