"""Precision of contacts, against a plain implementation of its definition and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tape.metrics import Bootstrap, Metric, measure_contacts, precision_at_l5, summarize_contacts
from tape.metrics.contacts import DEPTHS, NAMES, RANGES
from tape.metrics.original_contacts import expected_hits

CASES = [(name + suffix, divisor, low, high) for suffix, low, high in RANGES for name, divisor in DEPTHS]


def logits_of(scores: np.ndarray) -> np.ndarray:
    """(L, L, 2) logits whose second class has these scores."""
    return np.stack([np.zeros_like(scores), scores], axis=-1).astype(np.float32)


def measure(scores: np.ndarray, target: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, measure_contacts(logits_of(scores), target).precisions, strict=True))


def summary(*proteins: tuple[np.ndarray, np.ndarray], bootstrap: Bootstrap | None = None) -> dict[str, Metric]:
    rows = [measure_contacts(logits_of(scores), target) for scores, target in proteins]
    return {metric.name: metric for metric in summarize_contacts(rows, bootstrap)}


def by_definition(scores: np.ndarray, target: np.ndarray, divisor: int | None, low: int, high: int | None) -> float:
    length = len(target)
    pairs = [
        (-scores[i, j], i, j)
        for i in range(length)
        for j in range(i + 1, length)
        if j - i >= low and (high is None or j - i <= high) and target[i, j] != -1
    ]
    if not pairs:
        return math.nan
    depth = min(len(pairs), 5 if divisor is None else max(1, length // divisor))
    bound = sorted(pairs)[depth - 1][0]
    above = [target[i, j] for score, i, j in pairs if score < bound]
    level = [target[i, j] for score, i, j in pairs if score == bound]
    return float((sum(above) + (depth - len(above)) * np.mean(level)) / depth)


def random_protein(length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    scores = rng.normal(size=(length, length))
    target = (rng.random((length, length)) < 0.2).astype(np.int64)
    target = np.triu(target) + np.triu(target, 1).T
    invalid = rng.random(length) < 0.2
    target[invalid] = target[:, invalid] = -1
    return (scores + scores.T) / 2, target


def ranked_protein(length: int, contacts: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """The best pairs are (0, 6), (0, 7) ... in this order; ``contacts`` selects those that are contacts."""
    scores, target = np.full((length, length), -10.0), np.zeros((length, length), dtype=np.int64)
    for rank, contact in enumerate(contacts):
        scores[0, 6 + rank] = scores[6 + rank, 0] = 10.0 - rank
        target[0, 6 + rank] = target[6 + rank, 0] = int(contact)
    return scores, target


@pytest.mark.parametrize("length", [3, 7, 13, 40, 61])
def test_every_range_follows_the_definition(length: int) -> None:
    # bug 13 in docs/compatibility.md: per protein, valid pairs only, every range apart
    scores, target = random_protein(length, np.random.default_rng(length))
    found = measure(scores, target)
    for name, *definition in CASES:
        assert found[name] == pytest.approx(by_definition(scores, target, *definition), nan_ok=True), name


def test_ties_count_by_their_expectation() -> None:
    # half precision gives many equal logits: the numbers must not depend on how a sort breaks ties
    scores, target = random_protein(50, np.random.default_rng(9))
    scores = np.round(scores)
    found = measure(scores, target)
    for name, *definition in CASES:
        assert found[name] == pytest.approx(by_definition(scores, target, *definition)), name


def test_constant_scores_have_the_precision_of_the_base_rate() -> None:
    scores, target = random_protein(60, np.random.default_rng(4))
    metrics = summary((np.zeros_like(scores), target))
    for name, _, low, high in CASES:
        first, second = np.triu_indices(60, low)
        labels = target[first, second][(second - first <= (high or 60)) & (target[first, second] >= 0)]
        assert metrics[name].value == pytest.approx(labels.mean()), name
    first, second = np.triu_indices(60, 6)
    labels = target[first, second][target[first, second] >= 0]
    for name in ("batch_micro", "double_counted", "double_counted_batch_micro"):
        assert metrics[f"precision_at_l5_{name}"].value == pytest.approx(labels.mean())


def test_precision_with_ties_is_the_mean_over_random_orders() -> None:
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 4, 30).astype(float), rng.integers(0, 2, 30)
    orders = [np.lexsort((rng.random(30), -scores)) for _ in range(4000)]
    for k, hits in zip((1, 7, 20, 40), expected_hits(scores, labels, (1, 7, 20, 40)), strict=True):
        assert hits == pytest.approx(np.mean([labels[order[:k]].sum() for order in orders]), abs=0.1)


def test_no_order_of_the_pairs_changes_a_precision() -> None:
    scores, target = random_protein(40, np.random.default_rng(6))
    scores = np.round(scores)
    assert measure(scores[::-1, ::-1].T, target[::-1, ::-1].T) == pytest.approx(measure(scores, target), nan_ok=True)


def test_an_undefined_precision_has_its_reason() -> None:
    metrics = summary(random_protein(10, np.random.default_rng(7)))
    assert metrics["precision_at_l5_long"].undefined == "no protein has a labeled pair at this separation"
    assert metrics["precision_at_l5"].undefined is None


def test_precision_at_each_depth_of_a_known_ranking() -> None:
    # 20 residues: the best 20 pairs, 10, 4, and always 5
    found = measure(*ranked_protein(20, [True, False, True, True, True, True, False, False, False, False]))
    values = [found[name] for name in ("precision_at_l", "precision_at_l2", "precision_at_l5", "precision_at_5")]
    assert values == [5 / 20, 5 / 10, 3 / 4, 4 / 5]


def test_an_invalid_pair_is_never_selected() -> None:
    # bug 13 in docs/compatibility.md: the label -1 was summed into the precision, which could be negative
    target = np.full((20, 20), -1)
    target[0, 10] = target[10, 0] = 1
    scores = np.zeros((20, 20))
    scores[0, 10] = scores[10, 0] = -100.0
    assert measure(scores, target)["precision_at_l5"] == 1.0
    assert summary((scores, target))["precision_at_l5_batch_micro"].value == 1.0


def test_a_pair_counts_once() -> None:
    # bug 15 in docs/compatibility.md: with both triangles the best four pairs are two pairs seen twice
    found = summary(ranked_protein(20, [True, True, False, False]))
    assert found["precision_at_l5"].value == 0.5
    assert found["precision_at_l5_double_counted"].value == 1.0
    # k = 5: two pairs twice and one entry of the third
    odd = summary(ranked_protein(25, [True, False, True, True, True]))
    assert odd["precision_at_l5"].value == 4 / 5
    assert odd["precision_at_l5_double_counted"].value == 3 / 5
    assert "twice" in odd["precision_at_l5_double_counted"].definition


def test_the_original_averaged_over_batches_not_proteins() -> None:
    # bug 13 in docs/compatibility.md: 8 short proteins (k = 2, all correct) are one batch, a long one
    # (k = 10, 4 correct) the next
    short, long = ranked_protein(10, [True, True]), ranked_protein(50, [True] * 4)
    found = summary(long, *[short] * 8)
    assert found["precision_at_l5"].value == pytest.approx((8 + 0.4) / 9)
    assert found["precision_at_l5_batch_micro"].value == pytest.approx((1 + 0.4) / 2)
    # in one batch: 2 * 7 + 4 of 2 * 7 + 10
    assert summary(long, *[short] * 7)["precision_at_l5_batch_micro"].value == pytest.approx(18 / 24)
    assert summary(long, *[short] * 7)["precision_at_l5_double_counted_batch_micro"].value == pytest.approx(22 / 24)
    assert found["precision_at_l5_batch_micro"].n == 9


def test_the_mean_is_over_proteins_that_have_pairs() -> None:
    rng = np.random.default_rng(1)
    proteins = [random_protein(n, rng) for n in (5, 10, 30)]
    metrics = summary(*proteins)
    assert metrics["precision_at_l5"].n == 2  # the protein of 5 residues has no pair at separation 6
    assert metrics["precision_at_l5_long"].n == 1
    expected = np.mean([measure(*protein)["precision_at_l5"] for protein in proteins[1:]])
    assert metrics["precision_at_l5"].value == pytest.approx(expected)
    assert "6 or more" in metrics["precision_at_l5"].definition
    assert "12 to 23" in metrics["precision_at_l_medium"].definition
    assert "24 or more" in metrics["precision_at_l2_long"].definition
    assert "best 5 valid" in metrics["precision_at_5"].definition


def test_every_mean_over_proteins_has_an_interval_around_its_value() -> None:
    rng = np.random.default_rng(3)
    found = summary(*[random_protein(60, rng) for _ in range(12)], bootstrap=Bootstrap(200, seed=1))
    for name, metric in found.items():
        if name.endswith("batch_micro"):
            assert metric.interval is None
        else:
            assert metric.interval is not None
            assert metric.interval[0] < metric.value < metric.interval[1], name


def test_l5_is_a_precision() -> None:
    # bug 14 in docs/compatibility.md: the registered metric was the length of the target
    rng = np.random.default_rng(2)
    proteins = [random_protein(n, rng) for n in (20, 30)]
    value = precision_at_l5([target for _, target in proteins], [logits_of(scores) for scores, _ in proteins])
    assert value == pytest.approx(np.mean([by_definition(s, t, 5, 6, None) for s, t in proteins]))


def test_at_least_one_pair_of_a_short_protein_is_selected() -> None:
    target = np.ones((8, 8), dtype=np.int64)
    found = measure(np.zeros((8, 8)), target)
    assert found["precision_at_l5"] == 1.0
    assert math.isnan(found["precision_at_l5_medium"])


def test_metrics_of_an_empty_split_are_nan() -> None:
    metrics = summarize_contacts([], Bootstrap(10))
    assert all(math.isnan(metric.value) and metric.n == 0 and metric.interval is None for metric in metrics)
