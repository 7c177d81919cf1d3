"""Exact deduplication of proteins by a set of 16-byte digests in one array, 27 to 53 bytes per protein.

The digest of a protein is BLAKE2b over its residue ids. With 128 bits, two different proteins among 10^9 collide with
probability 10^-21, so proteins with equal digests are considered equal.
"""

from __future__ import annotations

import hashlib

import numpy as np

DIGEST_BYTES = 16
_INITIAL_CAPACITY = 1 << 16
_MAX_LOAD_FACTOR = 0.6  # the table is doubled above it


def protein_digest(ids: np.ndarray) -> bytes:
    """The 16-byte digest of one protein's residue ids."""
    return hashlib.blake2b(ids.tobytes(), digest_size=DIGEST_BYTES).digest()


class DigestSet:
    """A growing hash set of digests with open addressing and linear probing; digests are inserted in batches."""

    def __init__(self) -> None:
        self._table = np.zeros((_INITIAL_CAPACITY, 2), dtype=np.uint64)  # (0, 0) marks an empty slot
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Memory of the table in bytes."""
        return self._table.nbytes

    def add(self, digests: bytes) -> np.ndarray:
        """Add n concatenated digests.

        Returns:
            (n,) bool: True where a digest is new. Of equal digests in the batch, only the first is new.
        """
        pairs = np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)
        pairs[(pairs == 0).all(axis=1), 1] = 1  # the one digest that would look like an empty slot
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))  # stable: equal digests keep their order
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
        while size > _MAX_LOAD_FACTOR * capacity:
            capacity *= 2
        if capacity > len(self._table):
            occupied = self._table[self._table.any(axis=1)]
            self._table = np.zeros((capacity, 2), dtype=np.uint64)
            self._insert(occupied)

    def _insert(self, pairs: np.ndarray) -> np.ndarray:
        """Insert distinct digests; (n,) bool, True where a digest was absent.

        Every round probes one slot for each pending digest; those whose slot holds another digest move to the next.
        """
        new = np.zeros(len(pairs), dtype=bool)
        mask = np.uint64(len(self._table) - 1)
        slots = pairs[:, 0] & mask
        pending = np.arange(len(pairs))
        while len(pending):
            probed, digests = slots[pending], pairs[pending]
            empty = ~self._table[probed].any(axis=1)
            self._table[probed[empty]] = digests[empty]  # of several digests for one slot, the last one is stored
            stored = (self._table[probed] == digests).all(axis=1)
            new[pending] |= stored & empty
            pending = pending[~stored]
            slots[pending] = (slots[pending] + np.uint64(1)) & mask
        return new
