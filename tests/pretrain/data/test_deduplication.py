"""The set of digests against Python's built-in set."""

from __future__ import annotations

import numpy as np

from pretrain.data.deduplication import DIGEST_BYTES, DigestSet, protein_digest


def test_digest_set_equals_a_python_set() -> None:
    """Batches with duplicates inside and between them; few distinct first halves, so that slots collide."""
    generator = np.random.default_rng(0)
    stored = generator.integers(1, 30, size=(4000, 2), dtype=np.uint64)
    digests, known = DigestSet(), set()
    for batch in np.array_split(stored, 20):
        expected = []
        for pair in map(bytes, batch):
            expected.append(pair not in known)
            known.add(pair)
        assert digests.add(batch.tobytes()).tolist() == expected
    assert 800 < len(digests) == len(known) < 29 * 29 + 1


def test_memory_per_digest_is_bounded() -> None:
    digests = DigestSet()
    generator = np.random.default_rng(1)
    values = generator.integers(0, 1 << 63, size=(300_000, 2), dtype=np.uint64)
    for batch in np.array_split(values, 30):
        assert digests.add(batch.tobytes()).all()
    assert not digests.add(values[:5000].tobytes()).any()
    assert len(digests) == 300_000
    assert digests.nbytes / len(digests) < 60


def test_an_empty_batch_of_digests_is_accepted() -> None:
    assert DigestSet().add(b"").tolist() == []


def test_the_all_zero_digest_is_stored() -> None:
    digests = DigestSet()
    assert digests.add(bytes(DIGEST_BYTES)).tolist() == [True]
    assert digests.add(bytes(DIGEST_BYTES)).tolist() == [False]


def test_equal_proteins_have_equal_digests() -> None:
    one, other = np.array([5, 6, 7], dtype=np.uint8), np.array([5, 6], dtype=np.uint8)
    assert protein_digest(one) == protein_digest(one.copy())
    assert protein_digest(one) != protein_digest(other)
    assert len(protein_digest(other)) == DIGEST_BYTES
