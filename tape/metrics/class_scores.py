"""What the class metrics need of one protein: its labels, the predicted classes, and the scores of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Scores are kept, and curves computed, for at most this many classes. Remote homology has 1,195, most of which do not
# occur in a test split; their scores would take 130 MB for 27,000 proteins.
MOST_SCORED_CLASSES = 50


@dataclass(frozen=True)
class ClassScores:
    """The n labeled items of one protein: the protein itself, or its labeled residues.

    Attributes:
        classes: C, the number of classes.
        labels: (n,) int32 true classes.
        predicted: (n,) int32 classes with the highest score, the first of equal ones.
        log_odds: (n, C) float32, ``log(p / (1 - p))`` of each class's probability p; None for more than
            MOST_SCORED_CLASSES classes.
    """

    classes: int
    labels: np.ndarray
    predicted: np.ndarray
    log_odds: np.ndarray | None


def class_scores(prediction: np.ndarray, labels: np.ndarray, predicted: np.ndarray | None = None) -> ClassScores:
    """Reduce the scores of n items to what the metrics need.

    Args:
        prediction: (n, C) logits.
        labels: (n,) classes, none below 0.
        predicted: (n,) the first class with the highest logit, if it is known already.
    """
    classes = prediction.shape[-1]
    kept = log_odds(prediction) if 2 <= classes <= MOST_SCORED_CLASSES else None
    predicted = prediction.argmax(axis=-1) if predicted is None else predicted
    return ClassScores(classes, labels.astype(np.int32), predicted.astype(np.int32), kept)


def log_odds(logits: np.ndarray) -> np.ndarray:
    """(n, C) float32 log odds of the classes from their logits (n, C), C at least 2.

    They order items as the probabilities do, which in float32 are often all 1.
    """
    with np.errstate(invalid="ignore"):  # logits that are not numbers have no odds
        return _of_few(logits) if len(logits) < logits.shape[1] else _of_many(logits)


def _of_few(logits: np.ndarray) -> np.ndarray:
    """Item by item: for fewer items than classes, such as the single one of a protein."""
    values = logits.astype(np.float64)
    nothing = np.full((len(values), 1), -np.inf)
    before = np.logaddexp.accumulate(values, axis=1)[:, :-1]
    after = np.logaddexp.accumulate(values[:, ::-1], axis=1)[:, -2::-1]
    others = np.logaddexp(np.concatenate([nothing, before], axis=1), np.concatenate([after, nothing], axis=1))
    return np.asarray(values - others, dtype=np.float32)


def _of_many(logits: np.ndarray) -> np.ndarray:
    """Class by class, the same sums in the same order, of all items at once."""
    values = logits.T.astype(np.float64, order="C")
    before, after = np.empty_like(values), np.empty_like(values)
    before[0] = after[-1] = -np.inf
    for k in range(1, len(values)):
        np.logaddexp(before[k - 1], values[k - 1], out=before[k])
        np.logaddexp(after[-k], values[-k], out=after[-k - 1])
    others = np.logaddexp(before, after, out=before)
    return np.ascontiguousarray((values - others).T, dtype=np.float32)


@dataclass(frozen=True)
class LabeledItems:
    """The labeled items of N proteins in one table.

    Attributes:
        classes: C, the number of classes.
        proteins: N.
        protein: (items,) position of each item's protein.
        labels, predicted: (items,) true and predicted classes.
        log_odds: (items, C); None if they were not kept.
    """

    classes: int
    proteins: int
    protein: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    log_odds: np.ndarray | None


def labeled_items(rows: Sequence[ClassScores | None]) -> LabeledItems | None:
    """Join the items of N proteins; None if no protein has any.

    Args:
        rows: the proteins in the order of the data set; None for one without label.
    """
    scored = [row for row in rows if row is not None and row.labels.size]
    if not scored:
        return None
    sizes = [0 if row is None else row.labels.size for row in rows]
    kept = [row.log_odds for row in scored if row.log_odds is not None]
    return LabeledItems(
        classes=scored[0].classes,
        proteins=len(rows),
        protein=np.repeat(np.arange(len(rows)), sizes),
        labels=np.concatenate([row.labels for row in scored]),
        predicted=np.concatenate([row.predicted for row in scored]),
        log_odds=np.concatenate(kept) if len(kept) == len(scored) else None,
    )
