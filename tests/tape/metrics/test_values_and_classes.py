"""Metrics of values and classes."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from tape.errors import DataError
from tape.metrics import (
    accuracy,
    mean_absolute_error,
    mean_squared_error,
    pearsonr,
    r_squared,
    root_mean_squared_error,
    spearmanr,
)
from tape.metrics.classes import (
    ClassRank,
    ResidueCounts,
    measure_protein,
    measure_residues,
    summarize_proteins,
    summarize_residues,
    summarize_tokens,
)
from tape.metrics.values import measure_value, summarize_values


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_agree_with_scipy(ties: bool) -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 200))
    if ties:
        true, predicted = np.round(true), np.round(predicted * 2)
    assert spearmanr(true, predicted) == pytest.approx(scipy.stats.spearmanr(true, predicted).statistic, abs=1e-12)
    assert pearsonr(true, predicted) == pytest.approx(scipy.stats.pearsonr(true, predicted).statistic, abs=1e-12)


def test_squared_and_absolute_errors_of_known_values() -> None:
    true, predicted = [np.array([1.0]), np.array([2.0])], [np.array([2.0]), np.array([4.0])]
    assert mean_squared_error(true, predicted) == 2.5
    assert mean_absolute_error(true, predicted) == 1.5


def test_root_mean_square_and_r_squared_agree_with_scikit_learn() -> None:
    true, predicted = np.round(np.random.default_rng(1).normal(size=(2, 90)), 1)
    assert root_mean_squared_error(true, predicted) == pytest.approx(
        sklearn.metrics.root_mean_squared_error(true, predicted)
    )
    assert r_squared(true, predicted) == pytest.approx(sklearn.metrics.r2_score(true, predicted), abs=1e-12)
    assert r_squared(true, [true.mean()] * 90) == pytest.approx(0.0)  # constant predictions have an R2


def test_r_squared_of_equal_targets_is_undefined() -> None:
    assert math.isnan(r_squared([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]))
    assert math.isnan(r_squared([2.0], [1.0]))
    assert math.isnan(r_squared([2.0, 1.0], [1.0, math.inf]))


def test_a_constant_prediction_has_no_correlation_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(spearmanr([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]))
        assert math.isnan(spearmanr([1.0], [5.0]))
        assert math.isnan(pearsonr([0.1] * 7, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))  # the mean of 0.1s is not 0.1
        assert math.isnan(spearmanr([1.0, 2.0], [math.nan, 5.0]))


def test_ties_share_their_rank() -> None:
    # ranks 1 2.5 2.5 4 against 1 2 3 4: deviations -1.5 0 0 1.5 and -1.5 -.5 .5 1.5
    assert spearmanr([1.0, 5.0, 5.0, 9.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(4.5 / math.sqrt(4.5 * 5.0))


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="2 targets but 1 predictions"):
        mean_squared_error([1.0, 2.0], [1.0])


def test_value_metrics_are_over_the_entire_set() -> None:
    # bug 20 in docs/compatibility.md: averaged over batches, the rank correlation would be 1.0
    first = [measure_value(np.array([p]), np.array([t])) for p, t in [(1.0, 1.0), (2.0, 2.0)]]
    second = [measure_value(np.array([p]), np.array([t])) for p, t in [(0.1, 3.0), (0.2, 4.0)]]
    metrics = {metric.name: metric for metric in summarize_values(first + second)}
    expected = scipy.stats.spearmanr([1, 2, 3, 4], [1.0, 2.0, 0.1, 0.2]).statistic
    assert metrics["spearmanr"].value == pytest.approx(expected)
    assert {metric.n for metric in metrics.values()} == {4}


def test_accuracy_is_a_fraction_of_proteins_or_of_labeled_residues() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert accuracy(np.array([1, 0, 0]), scores) == pytest.approx(2 / 3)
    assert accuracy([np.int64(1), np.int64(0), np.int64(0)], list(scores)) == pytest.approx(2 / 3)
    # two proteins of 1 and 3 counted residues: 4 labels, 3 correct
    residues = [np.array([-1, 1]), np.array([0, 0, 1])]
    predictions = [np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [0, 1], [0, 1]])]
    assert accuracy(residues, predictions) == 0.75


def top_k(ranks: list[ClassRank]) -> dict[str, float]:
    """The accuracies among the metrics of protein classes."""
    return {m.name: m.value for m in summarize_proteins(ranks) if m.name == "accuracy" or m.name.startswith("top_")}


def test_top_k_accuracy_counts_labels_among_the_k_highest_scores() -> None:
    scores = np.arange(20.0)
    ranks = [measure_protein(scores, np.int64(label)) for label in (19, 16, 11, 0)]
    assert [rank.higher for rank in ranks] == [0, 3, 8, 19]
    assert top_k(ranks) == {"accuracy": 0.25, "top_5_accuracy": 0.5, "top_10_accuracy": 0.75}


def test_equal_scores_count_by_the_probability_of_a_hit() -> None:
    for label in (0, 7, 19):  # whatever the number of the class
        assert top_k([measure_protein(np.zeros(20), np.int64(label))]) == {
            "accuracy": 1 / 20,
            "top_5_accuracy": 5 / 20,
            "top_10_accuracy": 10 / 20,
        }
    two_best = measure_protein(np.array([1.0, 3.0, 3.0, *[0.0] * 8]), np.int64(2))
    assert list(top_k([two_best]).values()) == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("classes", "expected"), [(2, ["accuracy"]), (5, ["accuracy"]), (6, ["accuracy", "top_5_accuracy"])]
)
def test_the_top_k_of_k_classes_are_no_metric(classes: int, expected: list[str]) -> None:
    assert list(top_k([measure_protein(np.arange(float(classes)), np.int64(0))])) == expected


def test_scores_that_are_not_numbers_are_no_hit() -> None:
    rank = measure_protein(np.full(20, np.nan), np.int64(0))
    assert list(top_k([rank]).values()) == [0.0, 0.0, 0.0]
    (area,) = (metric for metric in summarize_proteins([rank]) if metric.name == "auroc")
    assert area.undefined == "a prediction is not a number"


def test_an_undefined_correlation_has_its_reason() -> None:
    def reasons(*rows: tuple[float, float]) -> set[str | None]:
        return {metric.undefined for metric in summarize_values(rows) if metric.name in ("spearmanr", "pearsonr")}

    assert reasons((1.0, 1.0), (1.0, 2.0)) == {"all predictions are equal"}
    assert reasons((1.0, 1.0), (2.0, 1.0)) == {"all targets are equal"}
    assert reasons((1.0, 1.0)) == {"it takes at least two proteins"}
    assert reasons((math.nan, 1.0), (2.0, 2.0)) == {"some predictions are not finite"}
    assert reasons() == {"there is nothing to measure: n is 0"}
    assert reasons((1.0, 1.0), (2.0, 2.0)) == {None}


def test_residue_and_protein_averages_differ() -> None:
    rows = [ResidueCounts(1, 1), ResidueCounts(0, 3), ResidueCounts(0, 0)]
    metrics = {metric.name: metric for metric in summarize_residues(rows)}
    assert (metrics["accuracy"].value, metrics["accuracy"].n) == (0.25, 4)
    assert (metrics["accuracy_per_protein"].value, metrics["accuracy_per_protein"].n) == (0.5, 2)
    assert set(metrics) == {"accuracy", "accuracy_per_protein"}


def test_residues_outside_valid_mask_are_scored_in_a_separate_metric() -> None:
    scores = np.eye(8)[[0, 1, 7, 3]]  # eight classes; the last residue's label is 4, and wrong
    row = measure_residues(scores, np.array([0, 2, -1, -1]), np.array([0, 2, 7, 4]))
    assert row[:4] == (1, 2, 2, 4)
    metrics = {metric.name: metric for metric in summarize_residues([row, ResidueCounts(0, 0, 1, 1)])}
    assert (metrics["accuracy"].value, metrics["accuracy"].n) == (0.5, 2)
    assert (metrics["accuracy_all_residues"].value, metrics["accuracy_all_residues"].n) == (0.6, 5)


def test_token_accuracy_is_a_fraction_of_predicted_tokens() -> None:
    (metric,) = summarize_tokens([ResidueCounts(1, 4), ResidueCounts(2, 2)])
    assert (metric.value, metric.n) == (0.5, 6)


def test_metrics_without_labels_are_nan_with_n_0() -> None:
    for metric in [*summarize_residues([]), *summarize_proteins([]), *summarize_values([]), *summarize_tokens([])]:
        assert math.isnan(metric.value)
        assert metric.n == 0
