"""Areas under the ROC and the precision-recall curve.

The values are scikit-learn's ``roc_auc_score`` and ``average_precision_score``. For resamples, the items are sorted
once into groups of scores: one for each score that a positive item has, and one for the gap below it. Between the
scores of two positives, the order of the negatives changes neither area, so that both follow exactly from the numbers
of positive and negative items in each group, which are sums over proteins. With more than MOST_THRESHOLDS different
scores of positives, quantiles of them bound the groups, and items in a gap count as ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import Estimates, Statistic, ratio_of_sums
from .class_scores import LabeledItems
from .metric import Metric

MOST_THRESHOLDS = 500
# Resamples whose areas are computed at a time. Of each, there are about eight arrays with as many numbers as groups;
# those of so many resamples have a megabyte at most and stay in the cache.
_RESAMPLES = 64


@dataclass(frozen=True)
class ScoredItems:
    """Items with a binary label and a score.

    Attributes:
        protein: (items,) position of each item's protein.
        positive: (items,) bool.
        scores: (items,), higher for those that are more likely positive.
    """

    protein: np.ndarray
    positive: np.ndarray
    scores: np.ndarray

    @property
    def has_both(self) -> bool:
        """Whether there are positive and negative items, without which the areas are undefined."""
        return bool(self.positive.any() and not self.positive.all())


def class_curves(items: LabeledItems, counted: str) -> Estimates | None:
    """AUROC and AUPRC of predicted classes; None if the scores of the classes were not kept.

    With two classes, class 1 is the positive one. With more, each class is compared with all others, and the areas are
    averaged over the classes that occur.

    Args:
        items: the labeled items.
        counted: what they are, such as "proteins".
    """
    if items.log_odds is None:
        return None
    binary = items.classes == 2
    chosen = [1] if binary else range(items.classes)
    labels = [ScoredItems(items.protein, items.labels == k, items.log_odds[:, k]) for k in chosen]
    of = f"of class 1 against class 0 over {counted}" if binary else f"of each class against all others over {counted}"
    mean = "" if binary else ", averaged over the classes that occur"
    reason = "all labels are of one class"
    return curve_metrics(labels, items.proteins, items.labels.size, of + mean, reason)


def curve_metrics(labels: Sequence[ScoredItems], proteins: int, n: int, of: str, reason: str) -> Estimates:
    """AUROC and AUPRC, averaged over those labels that have positive and negative items.

    Args:
        labels: the items of each label.
        proteins: number of proteins that are resampled.
        n: number of items.
        of: what the curves are of, for the definitions.
        reason: why the areas are undefined if no label has positive and negative items.
    """
    if not all(np.isfinite(label.scores).all() for label in labels):
        defined, reason = [], ""  # the metrics' own reason: a prediction is not a number
    else:
        defined = [label for label in labels if label.has_both]
    definitions = (
        ("auroc", f"area under the ROC curve {of}"),
        ("auprc", f"area under the precision-recall curve (average precision) {of}"),
    )
    metrics = [
        Metric(name, value, n, text, reason=reason)
        for (name, text), value in zip(definitions, _values(defined), strict=True)
    ]
    return Estimates(metrics, proteins, lambda: _resampled(defined, proteins))


def _values(defined: Sequence[ScoredItems]) -> tuple[float, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if not defined:
        return math.nan, math.nan
    areas = [[score(one.positive, one.scores) for one in defined] for score in (roc_auc_score, average_precision_score)]
    return float(np.mean(areas[0])), float(np.mean(areas[1]))


def _resampled(labels: Sequence[ScoredItems], proteins: int) -> Statistic:
    statistics = [_one_label(label, proteins) for label in labels]

    def statistic(counts: np.ndarray) -> np.ndarray:
        areas = np.array([one(counts) for one in statistics]).reshape(len(statistics), len(counts), 2)
        occurs = ~np.isnan(areas)
        return ratio_of_sums(np.where(occurs, areas, 0.0).sum(axis=0), occurs.sum(axis=0))

    return statistic


def score_groups(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Ascending number of each item's group: odd at the threshold of a positive, even in the gaps between them.

    Args:
        scores: (items,).
        positive: (items,) bool, at least one true.
    """
    thresholds = np.unique(scores[positive])
    if thresholds.size > MOST_THRESHOLDS:
        quantiles = np.linspace(0, 1, MOST_THRESHOLDS)
        thresholds = np.unique(np.quantile(scores[positive], quantiles, method="nearest"))
    below = np.searchsorted(thresholds, scores, side="left")
    equal = np.searchsorted(thresholds, scores, side="right") > below
    return 2 * below + equal


def _one_label(label: ScoredItems, proteins: int) -> Statistic:
    from scipy import sparse

    groups = score_groups(label.scores, label.positive)
    number = int(groups.max()) + 1
    column = groups + np.where(label.positive, number, 0)
    shape = (proteins, 2 * number)
    table = sparse.coo_array((np.ones(column.size), (label.protein, column)), shape).tocsr()

    def areas(counts: np.ndarray) -> np.ndarray:
        negative, positive = np.split(counts @ table, 2, axis=1)
        negatives, positives = negative.sum(axis=1), positive.sum(axis=1)
        lower = np.cumsum(negative, axis=1) - negative / 2  # negatives below each group, with half of those in it
        wins = (positive * lower).sum(axis=1)
        hits = np.cumsum(positive[:, ::-1], axis=1)[:, ::-1]  # items with at least the score of each group
        found = hits + np.cumsum(negative[:, ::-1], axis=1)[:, ::-1]
        precision = (positive * np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)).sum(axis=1)
        both = negatives * positives > 0
        average = np.where(both, ratio_of_sums(precision, positives), np.nan)
        return np.column_stack([ratio_of_sums(wins, negatives * positives), average])

    def statistic(counts: np.ndarray) -> np.ndarray:
        # in equal parts: numpy sums the groups of a single resample in another order than those of several
        parts = np.array_split(counts, max(1, -(-len(counts) // _RESAMPLES)))
        return np.concatenate([areas(part) for part in parts])

    return statistic
