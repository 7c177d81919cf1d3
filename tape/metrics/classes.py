"""Metrics of predicted classes per protein, per residue and per token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .bootstrap import Bootstrap, ratio_of_sums, with_intervals
from .metric import Metric

TOP_K = (1, 5, 10)


class ClassRank(NamedTuple):
    """Place of a protein's true class: the numbers of classes with a higher score, and with the same one (itself
    included); the latter is 0 if the protein has no label."""

    higher: int
    equal: int


class ResidueCounts(NamedTuple):
    """Numbers of correct and of scored labels of one protein; the last two include residues outside ``valid_mask``."""

    correct: int
    counted: int
    correct_of_all: int = 0
    all: int = 0


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
        rows = [measure_residues(np.asarray(prediction), np.asarray(labels))]
    else:
        rows = [measure_residues(np.asarray(p), np.asarray(t)) for t, p in zip(labels, prediction, strict=True)]
    counts = _table(rows).sum(axis=0)
    return float(counts[0] / counts[1]) if counts[1] else float("nan")


def _table(rows: Sequence[ResidueCounts]) -> np.ndarray:
    """(proteins, 4) float64."""
    return np.asarray(rows, dtype=np.float64).reshape(-1, len(ResidueCounts._fields))


def _count_correct(prediction: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    counted = target >= 0
    correct = prediction.argmax(axis=-1)[counted] == target[counted]
    return int(correct.sum()), int(correct.size)


def measure_residues(prediction: np.ndarray, target: np.ndarray, unmasked: np.ndarray | None = None) -> ResidueCounts:
    """Count the correct labels of one protein.

    Args:
        prediction: (..., classes) scores.
        target: (...) classes; labels below 0 are ignored.
        unmasked: (...) classes including residues outside ``valid_mask``, if the data set has them.
    """
    everything = (0, 0) if unmasked is None else _count_correct(prediction, unmasked)
    return ResidueCounts(*_count_correct(prediction, target), *everything)


def measure_protein(prediction: np.ndarray, target: np.ndarray) -> ClassRank:
    """Place of the true class among the scores of one protein."""
    label = int(target)
    if label < 0:
        return ClassRank(0, 0)
    scores = np.asarray(prediction, dtype=np.float64).reshape(-1)
    # a score that is not a number is no better than any other
    higher, equal = int(np.sum(scores > scores[label])), int(np.sum(scores == scores[label]))
    return ClassRank(higher, equal) if equal else ClassRank(scores.size, 1)


def summarize_proteins(rows: Sequence[ClassRank], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """Top-1, top-5 and top-10 accuracy over labeled proteins.

    Classes with the same score as the true one may be ranked before or after it: a protein counts with the probability
    that a random order of them puts the true class among the first k.
    """
    higher, equal = np.asarray(rows, dtype=np.float64).reshape(-1, len(ClassRank._fields)).T
    higher, equal = higher[equal > 0, None], equal[equal > 0, None]
    hits = np.clip((np.asarray(TOP_K) - higher) / equal, 0.0, 1.0)
    proteins = len(hits)
    values = ratio_of_sums(hits.sum(axis=0), np.full(len(TOP_K), float(proteins)))
    metrics = [
        Metric(
            "accuracy" if k == 1 else f"top_{k}_accuracy",
            float(value),
            proteins,
            f"fraction of proteins whose true class is among the best {k}, ties by expectation",
        )
        for k, value in zip(TOP_K, values, strict=True)
    ]
    return with_intervals(metrics, hits, np.ones_like(hits), bootstrap)


def summarize_residues(rows: Sequence[ResidueCounts], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """Accuracy over residues, mean of the accuracy per protein, and accuracy over all labeled residues."""
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
    return with_intervals(metrics[:shown], numerators[:, :shown], denominators[:, :shown], bootstrap)


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
