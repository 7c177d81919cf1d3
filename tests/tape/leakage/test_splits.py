"""Random splits that keep groups together."""

from __future__ import annotations

import numpy as np
import pytest

from tape.errors import DataError
from tape.leakage.splits import split_groups

FRACTIONS = (80, 10, 10)


def test_groups_stay_whole_and_splits_have_their_sizes() -> None:
    groups = np.random.default_rng(0).integers(0, 150, 1000)
    splits = split_groups(groups, FRACTIONS, seed=1)
    assert all(len(set(splits[groups == group].tolist())) == 1 for group in range(150))
    assert np.bincount(splits) == pytest.approx([800, 100, 100], abs=15)


def test_single_proteins_are_split_exactly_and_at_random() -> None:
    first, again, other = (split_groups(np.arange(1000), FRACTIONS, seed) for seed in (1, 1, 2))
    assert np.bincount(first).tolist() == [800, 100, 100]
    assert (first == again).all()
    assert np.mean(first == other) == pytest.approx(0.66, abs=0.06)  # .8 ** 2 + .1 ** 2 + .1 ** 2
    assert np.bincount(first[:500]) == pytest.approx([400, 50, 50], abs=20)


def test_large_groups_are_training_data() -> None:
    groups = np.concatenate([np.arange(700), np.full(300, 700)])
    for seed in range(5):
        splits = split_groups(groups, FRACTIONS, seed)
        assert set(splits[700:].tolist()) == {0}
        assert np.bincount(splits).tolist() == [800, 100, 100]


def test_too_few_groups_are_an_error() -> None:
    with pytest.raises(DataError, match="100 proteins in 1 groups that stay together can't be divided into 3 splits"):
        split_groups(np.zeros(100, dtype=np.int64), FRACTIONS, 1)
