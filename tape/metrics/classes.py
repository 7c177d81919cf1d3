"""Metrics of predicted classes: of a whole protein, of each residue, of each masked token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .definitions import Metric

IGNORED = -1
TOP_K = (1, 5, 10)
_RESIDUES = (
    "fraction of right residues over all labelled residues, those whose valid_mask is 1 where the record has one"
)


def accuracy(target: Any, prediction: Any) -> float:
    """Fraction of right classes over all counted labels (TAPE's ``accuracy``).

    Args:
        target: class numbers, or a list of arrays of them; -1 is not counted.
        prediction: scores with classes last, in the same arrangement.
    """
    labels = target if isinstance(target, np.ndarray) else list(target)
    if len(labels) == 0:
        return float("nan")
    if all(np.ndim(label) == 0 for label in labels):
        # One label a protein: a single array instead of a loop over Python objects.
        counts = [measure_residues(np.asarray(prediction), np.asarray(labels))]
    else:
        counts = [measure_residues(np.asarray(p), np.asarray(t)) for t, p in zip(labels, prediction, strict=True)]
    return _ratio(counts)


def _ratio(rows: Sequence[tuple[int, int]]) -> float:
    correct, total = np.asarray(rows, dtype=np.int64).reshape(-1, 2).sum(axis=0)
    return float(correct / total) if total else float("nan")


def measure_residues(prediction: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    """(right, counted) labels; ``prediction`` is (..., classes), ``target`` (...) with -1 not counted."""
    counted = target != IGNORED
    right = prediction.argmax(axis=-1)[counted] == target[counted]
    return int(right.sum()), int(right.size)


def measure_protein(prediction: np.ndarray, target: np.ndarray) -> int:
    """Rank from 0 of the true class among one protein's scores; -1 when the protein has no label.

    Equal scores stand in the order of their class numbers, as ``argmax`` takes them.
    """
    label = int(target)
    if label == IGNORED:
        return -1
    scores = np.asarray(prediction, dtype=np.float64).reshape(-1)
    return int(np.sum(scores > scores[label]) + np.sum(scores[:label] == scores[label]))


def summarise_proteins(rows: Sequence[int]) -> list[Metric]:
    """Top-1, top-5 and top-10 accuracy over labelled proteins."""
    ranks = np.asarray([rank for rank in rows if rank >= 0], dtype=np.int64)
    metrics = []
    for k in TOP_K:
        value = float(np.mean(ranks < k)) if ranks.size else float("nan")
        name = "accuracy" if k == 1 else f"top_{k}_accuracy"
        metrics.append(Metric(name, value, ranks.size, f"fraction of proteins whose true class is among the best {k}"))
    return metrics


def summarise_residues(rows: Sequence[tuple[int, int]]) -> list[Metric]:
    """Accuracy over all residues, and the mean over proteins of each protein's accuracy."""
    per_protein = [correct / total for correct, total in rows if total]
    residues = sum(total for _, total in rows)
    mean = float(np.mean(per_protein)) if per_protein else float("nan")
    return [
        Metric("accuracy", _ratio(rows), residues, _RESIDUES),
        Metric("accuracy_per_protein", mean, len(per_protein), "each protein's fraction of right residues, averaged"),
    ]


def summarise_tokens(rows: Sequence[tuple[int, int]]) -> list[Metric]:
    """Accuracy over predicted tokens of a language model."""
    tokens = sum(total for _, total in rows)
    return [Metric("accuracy", _ratio(rows), tokens, "fraction of right tokens over all predicted tokens")]
