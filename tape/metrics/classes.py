"""Metrics of predicted classes per protein, per residue and per token: accuracies, and those of
:mod:`tape.metrics.confusion` and :mod:`tape.metrics.curves`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .bootstrap import Bootstrap, Estimates, joined, ratio_of_sums, ratios, with_intervals
from .class_scores import ClassScores, LabeledItems, class_scores, labeled_items
from .confusion import confusion_counts, confusion_metrics
from .curves import class_curves
from .metric import Metric

TOP_K = (1, 5, 10)


class ClassRank(NamedTuple):
    """Place of a protein's true class.

    Attributes:
        higher, equal: numbers of classes with a higher score, and with the same one (itself included); the latter is 0
            if the protein has no label.
        scores: its label and scores; None if it has no label.
    """

    higher: int
    equal: int
    scores: ClassScores | None = None


class ResidueCounts(NamedTuple):
    """Labels of one protein's residues or tokens.

    Attributes:
        correct, counted: numbers of correct and of scored labels.
        correct_of_all, all: the same, including residues outside ``valid_mask``.
        scores: the scored labels and their scores; None for tokens.
    """

    correct: int
    counted: int
    correct_of_all: int = 0
    all: int = 0
    scores: ClassScores | None = None


def accuracy(target: Any, prediction: Any) -> float:
    """Fraction of correct classes over all labels (TAPE's ``accuracy``).

    Args:
        target: classes, or a list of arrays of classes; labels below 0 are ignored.
        prediction: scores in the same arrangement, with an additional last axis for the classes.
    """
    labels = target if isinstance(target, np.ndarray) else list(target)
    if len(labels) == 0:
        return float("nan")
    if all(np.ndim(label) == 0 for label in labels):
        # With one label per protein, a single array instead of a loop over Python objects.
        rows = [measure_tokens(np.asarray(prediction), np.asarray(labels))]
    else:
        rows = [measure_tokens(np.asarray(p), np.asarray(t)) for t, p in zip(labels, prediction, strict=True)]
    counts = _table(rows).sum(axis=0)
    return float(counts[0] / counts[1]) if counts[1] else float("nan")


def _table(rows: Sequence[ResidueCounts]) -> np.ndarray:
    """(proteins, 4) float64 numbers of labels."""
    return np.asarray([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4)


def _count_correct(predicted: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    counted = target >= 0
    correct = predicted[counted] == target[counted]
    return int(correct.sum()), int(correct.size)


def measure_residues(prediction: np.ndarray, target: np.ndarray, unmasked: np.ndarray | None = None) -> ResidueCounts:
    """Count the correct labels of one protein, and keep what other metrics of classes need.

    Args:
        prediction: (..., classes) logits.
        target: (...) classes; labels below 0 are ignored.
        unmasked: (...) classes including residues outside ``valid_mask``, if the data set has them.
    """
    predicted = prediction.argmax(axis=-1)
    everything = (0, 0) if unmasked is None else _count_correct(predicted, unmasked)
    labeled = target >= 0
    scores = class_scores(prediction[labeled], target[labeled], predicted[labeled])
    return ResidueCounts(*_count_correct(predicted, target), *everything, scores=scores)


def measure_tokens(prediction: np.ndarray, target: np.ndarray) -> ResidueCounts:
    """Count the correct tokens of one protein; arguments as in :func:`measure_residues`."""
    return ResidueCounts(*_count_correct(prediction.argmax(axis=-1), target))


def measure_protein(prediction: np.ndarray, target: np.ndarray) -> ClassRank:
    """Place of the true class among the scores of one protein."""
    label = int(target)
    if label < 0:
        return ClassRank(0, 0)
    scores = np.asarray(prediction, dtype=np.float64).reshape(-1)
    kept = class_scores(scores[None], np.array([label]))
    # a score that is not a number is no better than any other
    higher, equal = int(np.sum(scores > scores[label])), int(np.sum(scores == scores[label]))
    return ClassRank(higher, equal, kept) if equal else ClassRank(scores.size, 1, kept)


def estimate_proteins(rows: Sequence[ClassRank]) -> Estimates:
    """Top-1, top-5 and top-10 accuracy over labeled proteins, and the metrics of confusion matrix and scores.

    Classes with the same score as the true one may be ranked before or after it: a protein counts with the probability
    that a random order of them puts the true class among the first k. The top k of k classes or fewer are no metric.
    """
    rows = [row for row in rows if row.equal > 0]
    items = labeled_items([row.scores for row in rows])
    top_k = [k for k in TOP_K if k == 1 or items is None or k < items.classes]
    higher, equal = np.asarray([row[:2] for row in rows], dtype=np.float64).reshape(-1, 2).T
    hits = np.clip((np.asarray(top_k) - higher[:, None]) / equal[:, None], 0.0, 1.0)
    proteins = len(hits)
    values = ratio_of_sums(hits.sum(axis=0), np.full(len(top_k), float(proteins)))
    metrics = [
        Metric(
            "accuracy" if k == 1 else f"top_{k}_accuracy",
            float(value),
            proteins,
            f"fraction of proteins whose true class is among the best {k}, ties by expectation",
        )
        for k, value in zip(top_k, values, strict=True)
    ]
    return joined([ratios(metrics, hits, np.ones_like(hits)), *_estimates_of(items, "proteins")])


def _estimates_of(items: LabeledItems | None, counted: str) -> list[Estimates]:
    """The metrics of confusion matrix and scores; none without a label, or if no scores were kept."""
    if items is None:
        return []
    curves = class_curves(items, counted)
    return [confusion_metrics(items, counted), *([] if curves is None else [curves])]


def summarize_proteins(rows: Sequence[ClassRank], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """The metrics of :func:`estimate_proteins`, with intervals if there is a bootstrap."""
    return estimate_proteins(rows).with_intervals(bootstrap)


def count_confusions(rows: Sequence[ClassRank] | Sequence[ResidueCounts]) -> np.ndarray | None:
    """(C, C) labeled items by true class (row) and predicted class (column); None if there are none."""
    items = labeled_items([row.scores for row in rows])
    return None if items is None else confusion_counts(items)


def estimate_residues(rows: Sequence[ResidueCounts]) -> Estimates:
    """Accuracy over residues, mean of the accuracy per protein, accuracy over all labeled residues, and the metrics of
    confusion matrix and scores."""
    correct, counted, correct_of_all, everything = _table(rows).T
    scored = (counted > 0).astype(np.float64)
    numerators = np.stack([correct, np.nan_to_num(ratio_of_sums(correct, counted)), correct_of_all], axis=1)
    denominators = np.stack([counted, scored, everything], axis=1)
    definitions = (
        (
            "accuracy",
            "fraction of correctly predicted residues among those whose valid_mask is 1, or all without valid_mask",
        ),
        (
            "accuracy_per_protein",
            "each protein's fraction of correctly predicted residues (valid_mask 1), averaged over proteins",
        ),
        (
            "accuracy_all_residues",
            "fraction of correctly predicted residues among all labeled ones, as TAPE's code counts them",
        ),
    )
    values, sizes = ratio_of_sums(numerators.sum(axis=0), denominators.sum(axis=0)), denominators.sum(axis=0)
    metrics = [
        Metric(name, float(value), int(size), text)
        for (name, text), value, size in zip(definitions, values, sizes, strict=True)
    ]
    shown = 3 if everything.sum() else 2
    accuracies = ratios(metrics[:shown], numerators[:, :shown], denominators[:, :shown])
    return joined([accuracies, *_estimates_of(labeled_items([row.scores for row in rows]), "residues")])


def summarize_residues(rows: Sequence[ResidueCounts], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """The metrics of :func:`estimate_residues`, with intervals if there is a bootstrap."""
    return estimate_residues(rows).with_intervals(bootstrap)


def summarize_tokens(rows: Sequence[ResidueCounts], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """Accuracy over predicted tokens of a language model."""
    counts = _table(rows)[:, :2]
    correct, total = counts.sum(axis=0)
    value = float(correct / total) if total else float("nan")
    metric = Metric("accuracy", value, int(total), "fraction of correctly predicted tokens among all predicted tokens")
    return with_intervals([metric], counts[:, :1], counts[:, 1:], bootstrap)


def perplexity(mean_loss: float) -> float:
    """Perplexity of a language model: exp(mean loss in nats over the predicted tokens), infinite if it overflows.

    Pretraining and finetuning both report this number.
    """
    return math.exp(mean_loss) if mean_loss < 700 else math.inf
