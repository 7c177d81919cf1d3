"""Metrics of classes and labels as functions with TAPE's signature, ``metric(target, prediction) -> float``.

``target`` has one class, one array of residue classes, or one array of 0 and 1 for the labels of each protein;
``prediction`` has the logits, as in ``results.pkl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .classes import estimate_proteins, estimate_residues, measure_protein, measure_residues
from .metric import Metric
from .multilabel import estimate_labels, measure_labels


def balanced_accuracy(target: Any, prediction: Any) -> float:
    """Recall of each class that occurs, averaged over classes."""
    return _value("balanced_accuracy", target, prediction)


def matthews_correlation(target: Any, prediction: Any) -> float:
    """Matthews correlation coefficient; ``nan`` if all labels or all predictions are of one class."""
    return _value("mcc", target, prediction)


def macro_f1(target: Any, prediction: Any) -> float:
    """F1 of each class or label, averaged over those that occur."""
    return _value("macro_f1", target, prediction)


def micro_f1(target: Any, prediction: Any) -> float:
    """F1 of all pairs of a protein and a label."""
    return _value("micro_f1", target, prediction)


def auroc(target: Any, prediction: Any) -> float:
    """Area under the ROC curve, averaged over classes or labels."""
    return _value("auroc", target, prediction)


def auprc(target: Any, prediction: Any) -> float:
    """Area under the precision-recall curve (average precision), averaged over classes or labels."""
    return _value("auprc", target, prediction)


def _value(name: str, target: Any, prediction: Any) -> float:
    pairs = [(np.asarray(p), np.asarray(t)) for t, p in zip(target, prediction, strict=True)]
    return next((metric.value for metric in _metrics(pairs) if metric.name == name), float("nan"))


def _metrics(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Metric]:
    """All metrics of (prediction, target) pairs, whose shapes show the task type."""
    if all(prediction.shape == target.shape for prediction, target in pairs):
        return estimate_labels([measure_labels(*pair) for pair in pairs]).metrics
    if all(target.ndim == 0 for _, target in pairs):
        return estimate_proteins([measure_protein(*pair) for pair in pairs]).metrics
    return estimate_residues([measure_residues(*pair) for pair in pairs]).metrics
