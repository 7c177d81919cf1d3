"""Metrics of several labels per protein, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference

from tape.metrics import Bootstrap, auroc, macro_f1, micro_f1
from tape.metrics.bootstrap import resampled_counts
from tape.metrics.metric import Metric
from tape.metrics.multilabel import LabelRow, measure_labels, summarize_labels


def random_labels(proteins: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = (rng.random((proteins, 4)) < [0.1, 0.3, 0.5, 0.8]).astype(np.int64)
    scores = rng.normal(size=labels.shape) + 2 * labels - 1
    return labels, np.round(scores) if ties else scores


def rows_of(labels: np.ndarray, scores: np.ndarray) -> list[LabelRow]:
    return [measure_labels(*pair) for pair in zip(scores, labels, strict=True)]


def by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def expected(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    return {
        "macro_f1": reference.f1_score(labels, scores > 0, average="macro", zero_division=0),
        "micro_f1": reference.f1_score(labels, scores > 0, average="micro"),
        "auroc": reference.roc_auc_score(labels, scores),
        "auprc": reference.average_precision_score(labels, scores),
    }


@pytest.mark.parametrize("ties", [False, True])
def test_the_values_agree_with_scikit_learn(ties: bool) -> None:
    labels, scores = random_labels(120, ties)
    found = by_name(summarize_labels(rows_of(labels, scores)))
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(expected(labels, scores), abs=1e-6)
    assert {metric.n for metric in found.values()} == {480}


def test_the_intervals_are_those_of_scikit_learn_resample_by_resample() -> None:
    labels, scores = random_labels(60, ties=True)
    bootstrap = Bootstrap(40, seed=1)
    found = by_name(summarize_labels(rows_of(labels, scores), bootstrap))
    drawn = [np.repeat(np.arange(60), row.astype(int)) for block in resampled_counts(60, bootstrap) for row in block]
    values = [expected(labels[chosen], scores[chosen]) for chosen in drawn]
    for name, metric in found.items():
        assert metric.interval == pytest.approx(np.quantile([v[name] for v in values], [0.025, 0.975]), abs=1e-6), name


def test_unknown_labels_are_left_out() -> None:
    labels, scores = random_labels(50, ties=False)
    padded = np.concatenate([labels.astype(np.float64), np.full((3, 4), np.nan), np.full((3, 4), -1.0)])
    more = np.concatenate([scores, np.full((6, 4), 9.0)])
    found, complete = (by_name(summarize_labels(rows_of(*both))) for both in ((padded, more), (labels, scores)))
    assert {n: m.value for n, m in found.items()} == {n: m.value for n, m in complete.items()}
    assert found["auroc"].n == 200


def test_labels_that_no_protein_has_are_not_averaged() -> None:
    labels, scores = random_labels(50, ties=False)
    wider = np.concatenate([labels, np.zeros((50, 1), np.int64)], axis=1)
    found = by_name(summarize_labels(rows_of(wider, np.concatenate([scores, np.full((50, 1), -1.0)], axis=1))))
    complete = expected(labels, scores)
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(complete, abs=1e-6)


def test_undefined_metrics_have_their_reason() -> None:
    found = by_name(summarize_labels(rows_of(np.zeros((3, 2)), np.full((3, 2), -1.0))))
    assert found["macro_f1"].undefined == found["micro_f1"].undefined == "no label applies or is predicted"
    assert found["auroc"].undefined == "no label has both proteins with it and proteins without it"
    assert {metric.undefined for metric in summarize_labels([])} == {
        "no label applies or is predicted",
        "no label has both proteins with it and proteins without it",
    }


def test_functions_with_the_signature_of_tape_give_the_same_values() -> None:
    labels, scores = random_labels(50, ties=False)
    for name, function in {"macro_f1": macro_f1, "micro_f1": micro_f1, "auroc": auroc}.items():
        assert function(list(labels), list(scores)) == pytest.approx(expected(labels, scores)[name], abs=1e-6)
    assert math.isnan(micro_f1([[0, 0]], [[-1.0, -1.0]]))
