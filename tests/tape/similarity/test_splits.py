"""Drawing splits: copies and clusters together, sizes, classes, and the splits of earlier versions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tape.errors import DataError
from tape.similarity.splits import SPLITS, draw_splits

FRACTIONS = (80.0, 10.0, 10.0)


def names(count: int) -> list[str]:
    return [f"d{i}" for i in range(count)]


def counts(splits: list[str]) -> list[int]:
    found = Counter(splits)
    return [found[name] for name in SPLITS]


def test_a_split_has_the_proportions_and_depends_on_the_seed() -> None:
    first, again, other = (draw_splits(names(1000), FRACTIONS, seed) for seed in (1, 1, 2))
    assert counts(first) == [800, 100, 100]
    assert first == again
    equal = np.mean([one == another for one, another in zip(first, other, strict=True)])
    assert equal == pytest.approx(0.66, abs=0.06)  # .8 ** 2 + .1 ** 2 + .1 ** 2
    assert counts(first[:500]) == pytest.approx([400, 50, 50], abs=20)


def test_copies_of_a_sequence_are_in_one_split() -> None:
    proteins = [f"d{i % 20}" for i in range(60)]
    splits = draw_splits(proteins, FRACTIONS, 3)
    assert len(set(zip(proteins, splits, strict=True))) == 20


def test_clusters_stay_whole_and_no_split_exceeds_its_size_by_more_than_one() -> None:
    generator = np.random.default_rng(0)
    for seed in range(20):
        clusters = generator.zipf(1.5, 400) % 90
        splits = draw_splits(names(400), FRACTIONS, seed, clusters.tolist())
        assert len(set(zip(clusters.tolist(), splits, strict=True))) == len(set(clusters.tolist()))
        largest = max(Counter(clusters.tolist()).values())
        assert all(count - 4 * share <= largest for count, share in zip(counts(splits), FRACTIONS, strict=True))
        assert min(counts(splits)) > 0


def test_small_clusters_make_up_for_large_ones() -> None:
    clusters = np.random.default_rng(0).integers(0, 150, 1000).tolist()
    assert counts(draw_splits(names(1000), FRACTIONS, 1, clusters)) == pytest.approx([800, 100, 100], abs=15)


def test_large_clusters_are_training_data() -> None:
    clusters = [*range(700), *[700] * 300]
    for seed in range(5):
        splits = draw_splits(names(1000), FRACTIONS, seed, clusters)
        assert set(splits[700:]) == {"train"}
        assert counts(splits) == [800, 100, 100]


def test_each_split_has_its_share_of_a_rare_class() -> None:
    classes = ["rare"] * 10 + ["common"] * 90
    splits = draw_splits(names(100), FRACTIONS, 5, classes=classes)
    assert counts(splits[:10]) == [8, 1, 1]


def test_clusters_are_divided_class_by_class() -> None:
    clusters, classes = [i // 5 for i in range(500)], [i // 5 % 2 for i in range(500)]
    splits = draw_splits(names(500), FRACTIONS, 5, clusters, classes)
    for kind in (0, 1):
        assert counts([split for split, own in zip(splits, classes, strict=True) if own == kind]) == [200, 25, 25]


def test_a_split_of_size_zero_is_empty() -> None:
    assert counts(draw_splits(names(10), (80, 20, 0), 1)) == [8, 2, 0]
    assert counts(draw_splits(names(2), (99, 1, 0), 1, clusters=[4, 9])) == [1, 1, 0]


def test_a_split_that_was_asked_for_is_not_empty() -> None:
    assert counts(draw_splits(names(15), FRACTIONS, 1, [i // 5 for i in range(15)])) == [5, 5, 5]
    assert counts(draw_splits(names(10), (98, 1, 1), 1)) == [8, 1, 1]


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        ([0, 1, 1, 0], r"3 splits \(train, valid, test\) can't be drawn from 2 clusters of 4 different sequences"),
        (None, r"3 splits \(train, valid, test\) can't be drawn from 2 different sequences"),
    ],
)
def test_too_few_groups_are_an_error(clusters: list[int] | None, message: str) -> None:
    proteins = names(4) if clusters else ["a", "b", "a", "b"]
    with pytest.raises(DataError, match=message):
        draw_splits(proteins, FRACTIONS, 1, clusters)


@pytest.mark.parametrize(
    ("seed", "plain", "by_class"),
    [
        (1, "rrrrrearrrarrrrrrrrrrarerrrrrr", "ararrarrrrrrrrraerrearrrrararr"),
        (42, "rrrrrrrrrrrerarrreararrrrrrrrr", "arrrarrreaearrrrrrrarrrrrarrra"),
    ],
)
def test_a_seed_keeps_its_splits(seed: int, plain: str, by_class: str) -> None:
    """Second letters of the splits that the first versions drew, so that their runs can be repeated."""
    proteins, classes = [f"p{i % 25}" for i in range(30)], ["ab"[i % 25 % 3 == 0] for i in range(30)]
    assert "".join(split[1] for split in draw_splits(proteins, FRACTIONS, seed)) == plain
    assert "".join(split[1] for split in draw_splits(proteins, (70, 20, 10), seed, classes=classes)) == by_class
