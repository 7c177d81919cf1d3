"""Precision of contacts, against a slow reading of its definition and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tape.metrics import measure_contacts, precision_at_l5, summarise_contacts
from tape.metrics.contacts import DIVISORS, RANGES

NAMES = [name + suffix for suffix, _, _ in RANGES for _, name in DIVISORS]


def logits_of(scores: np.ndarray) -> np.ndarray:
    """(L, L, 2) logits whose second class has these scores."""
    return np.stack([np.zeros_like(scores), scores], axis=-1).astype(np.float32)


def measure(scores: np.ndarray, target: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, measure_contacts(logits_of(scores), target), strict=True))


def by_definition(scores: np.ndarray, target: np.ndarray, divisor: int, low: int, high: int | None) -> float:
    length = len(target)
    pairs = [
        (-scores[i, j], i, j)
        for i in range(length)
        for j in range(i + 1, length)
        if j - i >= low and (high is None or j - i <= high) and target[i, j] != -1
    ]
    chosen = sorted(pairs)[: min(max(1, length // divisor), len(pairs))]
    return float(np.mean([target[i, j] for _, i, j in chosen])) if chosen else math.nan


def random_protein(length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    scores = rng.normal(size=(length, length))
    target = (rng.random((length, length)) < 0.2).astype(np.int64)
    target = np.triu(target) + np.triu(target, 1).T
    invalid = rng.random(length) < 0.2
    target[invalid] = target[:, invalid] = -1
    return (scores + scores.T) / 2, target


@pytest.mark.parametrize("length", [3, 7, 13, 40, 61])
def test_every_range_follows_the_definition(length: int) -> None:
    # defect 13: per protein, valid pairs only, every range apart
    scores, target = random_protein(length, np.random.default_rng(length))
    found = measure(scores, target)
    for suffix, low, high in RANGES:
        for divisor, name in DIVISORS:
            expected = by_definition(scores, target, divisor, low, high)
            assert found[name + suffix] == pytest.approx(expected, nan_ok=True), name + suffix


def test_equal_scores_stand_in_the_order_of_their_pairs() -> None:
    # half precision gives many equal logits: the numbers must not depend on how a sort breaks ties
    scores, target = random_protein(50, np.random.default_rng(9))
    scores = np.round(scores)
    found = measure(scores, target)
    for suffix, low, high in RANGES:
        for divisor, name in DIVISORS:
            assert found[name + suffix] == pytest.approx(by_definition(scores, target, divisor, low, high))


def test_an_invalid_pair_is_never_chosen() -> None:
    # defect 13a: the label -1 was summed into the precision, which could be negative
    target = np.full((20, 20), -1)
    target[0, 10] = target[10, 0] = 1
    scores = np.zeros((20, 20))
    scores[0, 10] = scores[10, 0] = -100.0
    assert measure(scores, target)["precision_at_l5"] == 1.0


def test_a_pair_counts_once() -> None:
    # defect 15: with both triangles the best four pairs would be two pairs seen twice
    length = 20
    target = np.zeros((length, length), dtype=np.int64)
    scores = np.full((length, length), -10.0)
    for rank, (i, j) in enumerate([(0, 8), (0, 9), (0, 10), (0, 11)]):
        scores[i, j] = scores[j, i] = 10.0 - rank
        target[i, j] = target[j, i] = int(rank < 2)
    assert measure(scores, target)["precision_at_l5"] == 0.5


def test_the_mean_is_over_proteins_that_have_pairs() -> None:
    rng = np.random.default_rng(1)
    rows = [measure_contacts(logits_of(s), t) for s, t in (random_protein(n, rng) for n in (5, 10, 30))]
    metrics = {metric.name: metric for metric in summarise_contacts(rows)}
    assert metrics["precision_at_l5"].n == 2  # the protein of 5 residues has no pair at separation 6
    assert metrics["precision_at_l5_long"].n == 1
    assert metrics["precision_at_l5"].value == pytest.approx(
        np.mean([row[NAMES.index("precision_at_l5")] for row in rows[1:]])
    )
    assert "6 or more" in metrics["precision_at_l5"].definition
    assert "12 to 23" in metrics["precision_at_l_medium"].definition
    assert "24 or more" in metrics["precision_at_l2_long"].definition


def test_l5_is_a_precision() -> None:
    # defect 14: the registered metric was the length of the target
    rng = np.random.default_rng(2)
    proteins = [random_protein(n, rng) for n in (20, 30)]
    value = precision_at_l5([target for _, target in proteins], [logits_of(scores) for scores, _ in proteins])
    assert value == pytest.approx(np.mean([by_definition(s, t, 5, 6, None) for s, t in proteins]))


def test_short_proteins_take_at_least_one_pair() -> None:
    target = np.ones((8, 8), dtype=np.int64)
    found = measure(np.zeros((8, 8)), target)
    assert found["precision_at_l5"] == 1.0
    assert math.isnan(found["precision_at_l5_medium"])
