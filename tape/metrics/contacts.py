"""Precision of predicted contacts, protein by protein.

A protein of L residues gives P@L/d: of its valid pairs in a range of separations j - i, sorted by predicted contact
score, the fraction of true contacts among the first k = min(max(1, L // d), number of valid pairs). A pair is valid
when its label is not -1. Only j > i is read, so a pair counts once. The mean over proteins is reported; a protein
without a valid pair in a range (too short) is not part of that range's mean.

Ranges as in the field: short 6-11, medium 12-23, long >= 24. TAPE's paper speaks of medium and long range (>= 12),
while TAPE's and ProteinLM's code ranks every separation >= 6; the key ``precision_at_l5`` keeps the code's range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .definitions import Metric

MINIMUM_SEPARATION = 6

# suffix of the key, first separation, last separation (None: no end)
RANGES: tuple[tuple[str, int, int | None], ...] = (
    ("", 6, None),
    ("_short", 6, 11),
    ("_medium", 12, 23),
    ("_medium_long", 12, None),
    ("_long", 24, None),
)
DIVISORS = ((1, "precision_at_l"), (2, "precision_at_l2"), (5, "precision_at_l5"))


def contact_scores(logits: np.ndarray) -> np.ndarray:
    """(L, L) scores, monotone in the contact probability, from (L, L, 2) logits (or (L, L) scores as they are)."""
    return logits[..., 1] - logits[..., 0] if logits.ndim == 3 else logits


def measure_contacts(prediction: np.ndarray, target: np.ndarray) -> tuple[float, ...]:
    """Precision of one protein for every range and divisor, in the order of ``RANGES`` x ``DIVISORS``.

    Args:
        prediction: (L, L, 2) logits without special tokens and padding.
        target: (L, L) in {0, 1, -1}.

    Returns:
        15 numbers; ``nan`` where the protein has no valid pair.
    """
    length = target.shape[0]
    first, second = np.triu_indices(length, k=MINIMUM_SEPARATION)
    labels = target[first, second]
    valid = labels != -1
    separation = (second - first)[valid]
    scores = contact_scores(np.asarray(prediction, dtype=np.float32))[first, second][valid]
    scores, labels = np.nan_to_num(scores, nan=-np.inf), labels[valid]
    row: list[float] = []
    for _, low, high in RANGES:
        inside = (separation >= low) & (separation <= (high if high is not None else length))
        ranked = labels[inside][_best(scores[inside], max(1, length))]
        row.extend(_precision(ranked, max(1, length // divisor)) for divisor, _ in DIVISORS)
    return tuple(row)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k highest scores, best first; equal scores in their given order. Faster than sorting all."""
    if scores.size > k:
        bound = np.partition(scores, -k)[-k]
        above = np.flatnonzero(scores > bound)
        level = np.flatnonzero(scores == bound)[: k - above.size]
        chosen = np.sort(np.concatenate([above, level]))
    else:
        chosen = np.arange(scores.size)
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _precision(ranked: np.ndarray, k: int) -> float:
    """Fraction of contacts among the first k labels, or among all when there are fewer."""
    return float(np.mean(ranked[:k] == 1)) if ranked.size else float("nan")


def precision_at_l5(target: Any, prediction: Any) -> float:
    """The ``L5`` metric: mean over proteins of P@L/5 at separations >= 6.

    Args:
        target: list of (L, L) label arrays.
        prediction: list of (L, L, 2) logits.
    """
    rows = [measure_contacts(np.asarray(p), np.asarray(t)) for t, p in zip(target, prediction, strict=True)]
    values = {metric.name: metric.value for metric in summarise_contacts(rows)}
    return values["precision_at_l5"]


def _definition(divisor: int, low: int, high: int | None) -> str:
    span = f"{low} to {high}" if high is not None else f"{low} or more"
    depth = "L" if divisor == 1 else f"L/{divisor}"
    return (
        f"precision of the best {depth} valid pairs at separation {span}, j > i, at least one pair, "
        "averaged over proteins that have such a pair"
    )


def summarise_contacts(rows: Sequence[tuple[float, ...]]) -> list[Metric]:
    """Mean over proteins of each of the 15 precisions."""
    table = np.asarray(rows, dtype=np.float64).reshape(-1, len(RANGES) * len(DIVISORS))
    metrics = []
    for index, column in enumerate(table.T):
        suffix, low, high = RANGES[index // len(DIVISORS)]
        divisor, name = DIVISORS[index % len(DIVISORS)]
        counted = column[~np.isnan(column)]
        value = float(counted.mean()) if counted.size else float("nan")
        metrics.append(Metric(name + suffix, value, counted.size, _definition(divisor, low, high)))
    return metrics
