"""Metrics of several labels per protein, each of which applies or not, such as Gene Ontology terms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .bootstrap import Bootstrap, Estimates, Statistic, joined, ratio_of_sums
from .curves import ScoredItems, curve_metrics
from .metric import Metric

# (scores, labels) of one protein, (T,) each
LabelRow = tuple[np.ndarray, np.ndarray]


def measure_labels(prediction: np.ndarray, target: np.ndarray) -> LabelRow:
    """Scores and labels of one protein.

    Args:
        prediction: (T,) logits.
        target: (T,) 1 where the label applies, 0 where it does not; below 0 or ``nan`` where it is unknown.
    """
    labels = np.nan_to_num(np.asarray(target, dtype=np.float64).reshape(-1), nan=-1.0)
    return np.asarray(prediction, dtype=np.float32).reshape(-1), labels.astype(np.int8)


def estimate_labels(rows: Sequence[LabelRow]) -> Estimates:
    """Macro and micro F1 (a label is predicted from probability 0.5 on), AUROC and AUPRC over the known labels."""
    scores = np.stack([row[0] for row in rows]) if rows else np.zeros((0, 0), np.float32)
    labels = np.stack([row[1] for row in rows]) if rows else np.zeros((0, 0), np.int8)
    known = [np.flatnonzero(column >= 0) for column in labels.T]
    items = [ScoredItems(at, labels[at, t] == 1, scores[at, t]) for t, at in enumerate(known)]
    n = int((labels >= 0).sum())
    of = "of each label over proteins, averaged over the labels that occur"
    curves = curve_metrics(items, len(rows), n, of, "no label has both proteins with it and proteins without it")
    return joined([_f1(scores, labels, n), curves])


def summarize_labels(rows: Sequence[LabelRow], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """The metrics of :func:`estimate_labels`, with intervals if there is a bootstrap."""
    return estimate_labels(rows).with_intervals(bootstrap)


def _f1(scores: np.ndarray, labels: np.ndarray, n: int) -> Estimates:
    known = labels >= 0
    true, predicted = labels == 1, (scores > 0) & known
    counted = true.any(axis=0) | predicted.any(axis=0)
    reason = "no label applies or is predicted"
    macro, micro = _f1_values(true[:, counted], predicted[:, counted], known[:, counted])
    metrics = [
        Metric(
            "macro_f1", macro, n, "F1 of each label that applies or is predicted, averaged over labels", None, reason
        ),
        Metric("micro_f1", micro, n, "F1 of all pairs of a protein and a label at once", None, reason),
    ]
    return Estimates(metrics, len(labels), lambda: _resampled_f1(true, predicted))


def _f1_values(true: np.ndarray, predicted: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    from sklearn.metrics import f1_score

    if not true.size:
        return math.nan, math.nan
    columns = zip(true.T, predicted.T, known.T, strict=True)
    return (
        float(np.mean([f1_score(t[k], p[k], zero_division=0) for t, p, k in columns])),
        float(f1_score(true[known], predicted[known])),
    )


def _resampled_f1(true: np.ndarray, predicted: np.ndarray) -> Statistic:
    hits = (true & predicted).astype(np.float64)
    sizes = true.astype(np.float64) + predicted

    def statistic(counts: np.ndarray) -> np.ndarray:
        both, size = 2 * (counts @ hits), counts @ sizes
        each = np.nan_to_num(ratio_of_sums(both, size))
        macro = ratio_of_sums(each.sum(axis=1), (size > 0).sum(axis=1))
        return np.column_stack([macro, ratio_of_sums(both.sum(axis=1), size.sum(axis=1))])

    return statistic
