"""Metrics of confusion matrices and of scores, per protein and per residue, against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
import sklearn.metrics as reference

from tape.metrics import (
    TASK_TYPE_METRICS,
    Bootstrap,
    auprc,
    auroc,
    balanced_accuracy,
    curves,
    macro_f1,
    matthews_correlation,
)
from tape.metrics.bootstrap import resampled_counts
from tape.metrics.class_scores import MOST_SCORED_CLASSES, log_odds
from tape.metrics.classes import (
    count_confusions,
    measure_protein,
    measure_residues,
    summarize_proteins,
    summarize_residues,
)
from tape.metrics.confusion import MOST_CLASSES, MOST_PAIRS, Confusion, confusion_of
from tape.metrics.metric import Metric
from tape.tasks import TaskType

Labels, Scores = np.ndarray, np.ndarray


def one_versus_rest(score: Callable[..., float]) -> Callable[[Labels, Scores], float]:
    """The mean over the classes that occur, or class 1 against class 0, of probabilities."""

    def mean(labels: Labels, scores: Scores) -> float:
        # rounded, since rounding errors would order equal probabilities
        probabilities = np.round(scipy.special.softmax(scores.astype(np.float64), axis=1), 10)
        chosen = (
            [1]
            if scores.shape[1] == 2
            else [k for k in range(scores.shape[1]) if 0 < (labels == k).sum() < labels.size]
        )
        return float(np.mean([score(labels == k, probabilities[:, k]) for k in chosen]))

    return mean


EXPECTED: dict[str, Callable[[Labels, Scores], float]] = {
    "balanced_accuracy": lambda y, s: reference.balanced_accuracy_score(y, s.argmax(1)),
    "macro_f1": lambda y, s: reference.f1_score(y, s.argmax(1), average="macro", zero_division=0),
    "mcc": lambda y, s: reference.matthews_corrcoef(y, s.argmax(1)),
    "auroc": one_versus_rest(reference.roc_auc_score),
    "auprc": one_versus_rest(reference.average_precision_score),
}


def random_items(items: int, classes: int, ties: bool, seed: int = 0) -> tuple[Labels, Scores]:
    """Classes of unequal size, and scores that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, items) - 1, classes - 1)
    scores = rng.normal(size=(items, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, np.round(scores) if ties else scores


def by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def ranks_of(labels: Labels, scores: Scores) -> list[Any]:
    return [measure_protein(row, label) for label, row in zip(labels, scores, strict=True)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_values_agree_with_scikit_learn(classes: int, ties: bool) -> None:
    labels, scores = random_items(150, classes, ties)
    found = by_name(summarize_proteins(ranks_of(labels, scores)))
    for name, expected in EXPECTED.items():
        assert found[name].value == pytest.approx(expected(labels, scores), abs=1e-6), name
        assert found[name].n == 150


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_values_of_residues_are_over_all_labeled_residues_at_once(classes: int, ties: bool) -> None:
    labels, scores = random_items(300, classes, ties)
    masked = np.where(np.arange(300) % 7 == 0, -1, labels)
    cuts = [20, 21, 90, 200]
    rows = [measure_residues(s, t) for s, t in zip(np.split(scores, cuts), np.split(masked, cuts), strict=True)]
    found = by_name(summarize_residues(rows))
    for name, expected in EXPECTED.items():
        assert found[name].value == pytest.approx(expected(labels[masked >= 0], scores[masked >= 0]), abs=1e-6), name


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_intervals_are_those_of_scikit_learn_resample_by_resample(classes: int, ties: bool) -> None:
    labels, scores = random_items(40, classes, ties)
    bootstrap = Bootstrap(60, seed=5)
    found = by_name(summarize_proteins(ranks_of(labels, scores), bootstrap))
    drawn = [np.repeat(np.arange(40), row.astype(int)) for block in resampled_counts(40, bootstrap) for row in block]
    for name, expected in EXPECTED.items():
        values = [expected(labels[chosen], scores[chosen]) for chosen in drawn]
        assert found[name].interval == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-6), name


def test_the_intervals_of_residues_are_over_proteins() -> None:
    labels, scores = random_items(200, 3, ties=True)
    bootstrap, cuts = Bootstrap(50, seed=6), list(range(10, 200, 10))
    pieces = list(zip(np.split(labels, cuts), np.split(scores, cuts), strict=True))
    found = by_name(summarize_residues([measure_residues(s, t) for t, s in pieces], bootstrap))
    drawn = [np.repeat(np.arange(20), row.astype(int)) for block in resampled_counts(20, bootstrap) for row in block]
    for name, expected in EXPECTED.items():
        values = [expected(*(np.concatenate([pieces[i][side] for i in chosen]) for side in (0, 1))) for chosen in drawn]
        assert found[name].interval == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-6), name


def test_many_positives_are_grouped_by_quantiles_of_their_scores() -> None:
    """Few positives keep their own thresholds; 3,000 share 500, which moves an area by less than a thousandth."""
    rng = np.random.default_rng(7)
    for positives, tolerance in ((60, 1e-6), (3000, 1e-3)):
        labels = (np.arange(6000) < positives).astype(np.int64)
        scores = np.stack([np.zeros(6000), rng.normal(size=6000) + 2 * labels], axis=1)
        bootstrap = Bootstrap(5, seed=8)
        found = by_name(summarize_proteins(ranks_of(labels, scores), bootstrap))
        drawn = [
            np.repeat(np.arange(6000), r.astype(int)) for block in resampled_counts(6000, bootstrap) for r in block
        ]
        for name in ("auroc", "auprc"):
            values = [EXPECTED[name](labels[chosen], scores[chosen]) for chosen in drawn]
            assert found[name].interval == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=tolerance), name


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("resamples", [0, 1, 2, 63, 64, 65, 129, 200])
def test_areas_of_some_resamples_at_a_time_are_those_of_all_at_once(
    resamples: int, ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(resamples)
    scores, protein = rng.normal(size=900), np.sort(rng.integers(0, 30, 900))
    # drawn from a few proteins, so that some resamples have no positive item
    positive = (rng.random(900) < 0.3) & (protein < 3)
    label = curves.ScoredItems(protein, positive, np.round(scores) if ties else scores)
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=resamples).astype(np.float64)
    found = curves._one_label(label, 30)(counts)
    monkeypatch.setattr(curves, "_RESAMPLES", max(1, resamples))
    np.testing.assert_array_equal(found, curves._one_label(label, 30)(counts))
    assert found.shape == (resamples, 2)
    assert np.isnan(found).any() == (resamples >= 63)


def test_log_odds_are_those_of_the_probabilities_and_do_not_saturate() -> None:
    logits = np.random.default_rng(9).normal(size=(20, 5)) * 3
    np.testing.assert_allclose(log_odds(logits), scipy.special.logit(scipy.special.softmax(logits, axis=1)), rtol=1e-5)
    certain = log_odds(np.array([[0.0, 900.0, 0.0], [0.0, 901.0, 0.0]]))  # both have probability 1 in float64
    assert certain[0, 1] < certain[1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 3, 8, MOST_SCORED_CLASSES])
@pytest.mark.parametrize("items", [0, 1, 60])
@pytest.mark.parametrize("kind", ["random", "ties", "not finite"])
def test_log_odds_of_many_items_are_those_of_each(items: int, classes: int, dtype: type, kind: str) -> None:
    rng = np.random.default_rng(classes)
    logits = (rng.normal(size=(items, classes)) * 5).astype(dtype)
    if kind == "ties":
        logits = np.round(logits / 5)
    if kind == "not finite":
        logits[rng.random(logits.shape) < 0.3] = rng.choice([np.nan, np.inf, -np.inf])
    found = log_odds(logits)
    assert (found.shape, found.dtype) == (logits.shape, np.float32)
    assert found.flags.c_contiguous
    each = [log_odds(row[None]) for row in logits]  # fewer items than classes are computed otherwise
    np.testing.assert_array_equal(found, np.concatenate([np.zeros((0, classes)), *each]))


def test_one_prediction_per_residue_counts_for_all_metrics() -> None:
    """The first of equal scores, and of scores that are not numbers, as in ``argmax``."""
    scores = np.array([[1, 1, 0], [0, 2, 2], [np.nan, 5, 1], [-np.inf, -np.inf, -np.inf], [3, 1, 2]])
    target, unmasked = np.array([0, 2, -1, -1, 0]), np.array([0, 2, 0, 1, 0])
    measured = measure_residues(scores, target, unmasked)
    assert measured[:4] == (2, 3, 3, 5)
    assert measured.scores is not None
    assert measured.scores.predicted.tolist() == [0, 1, 0]
    assert measured.scores.predicted.dtype == np.int32


def test_undefined_metrics_have_their_reason() -> None:
    def reasons(labels: list[int], predicted: list[int]) -> dict[str, str | None]:
        found = by_name(summarize_proteins(ranks_of(np.array(labels), np.eye(3)[predicted])))
        return {name: found[name].undefined for name in EXPECTED}

    defined = dict.fromkeys(EXPECTED)
    areas = dict.fromkeys(("auroc", "auprc"), "all labels are of one class")
    assert reasons([1, 1, 1], [1, 0, 1]) == {**defined, **areas, "mcc": "all labels are of one class"}
    assert reasons([0, 1, 2], [1, 1, 1]) == {**defined, "mcc": "all predictions are of one class"}
    assert reasons([0, 1, 1], [0, 1, 1]) == defined


def test_a_class_that_is_predicted_but_does_not_occur_lowers_f1_alone() -> None:
    found = by_name(summarize_proteins(ranks_of(np.array([0, 0, 1, 1]), np.eye(3)[[0, 2, 1, 1]])))
    assert found["balanced_accuracy"].value == 0.75
    assert found["macro_f1"].value == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_tasks_with_very_many_classes_keep_no_scores() -> None:
    classes = MOST_SCORED_CLASSES + 1
    row = measure_protein(np.arange(float(classes)), np.int64(3))
    assert row.scores is not None
    assert row.scores.log_odds is None
    found = by_name(summarize_proteins([row, row]))
    assert "macro_f1" in found
    assert "auroc" not in found


def test_functions_with_the_signature_of_tape_give_the_same_values() -> None:
    labels, scores = random_items(60, 3, ties=False)
    functions = {
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "mcc": matthews_correlation,
        "auroc": auroc,
        "auprc": auprc,
    }
    for name, function in functions.items():
        value = EXPECTED[name](labels, scores)
        assert function(list(labels), list(scores)) == pytest.approx(value, abs=1e-6), name
        residues = function(np.split(labels, [10, 25]), np.split(scores, [10, 25]))
        assert residues == pytest.approx(value, abs=1e-6), name
    assert math.isnan(matthews_correlation([1, 1], [np.eye(3)[0], np.eye(3)[1]]))


def test_a_confusion_matrix_has_true_classes_in_rows() -> None:
    rows = [
        measure_residues(np.eye(3)[[0, 2, 2, 1]], np.array([0, 0, 2, -1])),
        measure_residues(np.eye(3)[[1]], np.array([0])),
    ]
    counts = count_confusions(rows)
    assert counts is not None
    assert confusion_of(counts, "HEC") == Confusion(3, ("H", "E", "C"), ((1, 1, 1), (0, 0, 0), (0, 0, 1)))
    assert confusion_of(counts, ["too few"]).names == ("0", "1", "2")
    assert TASK_TYPE_METRICS[TaskType.VALUE].confusions is None
    assert count_confusions([measure_protein(np.zeros(3), np.int64(-1))]) is None


def test_many_classes_are_reduced_to_the_pairs_confused_most_often() -> None:
    classes = MOST_CLASSES + 10
    counts = np.diag(np.full(classes, 100))
    counts[3, 5], counts[7, 2] = 4, 9
    confusion = confusion_of(counts, [f"fold {k}" for k in range(classes)])
    assert (confusion.classes, confusion.names, confusion.counts) == (classes, (), ())
    assert [(p.true, p.predicted, p.count, p.of) for p in confusion.pairs] == [
        ("fold 7", "fold 2", 9, 109),
        ("fold 3", "fold 5", 4, 104),
    ]
    assert len(confusion_of(np.ones((classes, classes), np.int64)).pairs) == MOST_PAIRS
