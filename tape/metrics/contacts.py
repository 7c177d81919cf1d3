"""Contact precision P@k per protein, averaged over proteins, under all published definitions.

P@k of a protein of L residues considers its valid pairs i < j within a range of sequence separations j - i. Among the
min(k, number of valid pairs) pairs with the highest predicted scores, it is the fraction of true contacts. k is
max(1, L // d) or 5. A pair is valid if its label is not below 0. A protein without a valid pair in a range (because it
is too short) is excluded from the mean of that range. If pairs have equal scores, P@k is its expectation over their
order: with constant scores, the fraction of contacts among all valid pairs.

The ranges are those of the field: short 6-11, medium 12-23, long >= 24. TAPE's paper reports medium and long range
(>= 12), but TAPE's and ProteinLM's code includes all separations >= 6; the key ``precision_at_l5`` has the range of the
code (bug 13 in docs/compatibility.md). :mod:`tape.metrics.original_contacts` has two more definitions in the original
code, by which numbers were published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .bootstrap import Bootstrap, with_intervals
from .metric import Metric
from .original_contacts import OriginalCounts, count_as_original, expected_hits, summarize_as_original

MINIMUM_SEPARATION = 6

# suffix of the key, smallest separation, largest separation (None: no limit)
RANGES: tuple[tuple[str, int, int | None], ...] = (
    ("", 6, None),
    ("_short", 6, 11),
    ("_medium", 12, 23),
    ("_medium_long", 12, None),
    ("_long", 24, None),
)
FIXED_DEPTH = 5
# name, divisor of L (None: FIXED_DEPTH pairs)
DEPTHS: tuple[tuple[str, int | None], ...] = (
    ("precision_at_l", 1),
    ("precision_at_l2", 2),
    ("precision_at_l5", 5),
    ("precision_at_5", None),
)
_NO_PAIR = "no protein has a labeled pair at this separation"
NAMES = tuple(name + suffix for suffix, _, _ in RANGES for name, _ in DEPTHS)


class ContactRow(NamedTuple):
    """Measurements of one protein: precisions in the order of ``NAMES`` (``nan`` without a valid pair), and the counts
    of the original definitions."""

    precisions: tuple[float, ...]
    original: OriginalCounts


def contact_scores(logits: np.ndarray) -> np.ndarray:
    """(L, L) scores that increase with the contact probability, from (L, L, 2) logits or (L, L) scores."""
    return logits[..., 1] - logits[..., 0] if logits.ndim == 3 else logits


def measure_contacts(prediction: np.ndarray, target: np.ndarray) -> ContactRow:
    """Compute the precision of one protein for every range and depth.

    Args:
        prediction: (L, L, 2) logits, or (L, L) scores, without special tokens and padding.
        target: (L, L) in {0, 1}; below 0 if there is no label.
    """
    length = target.shape[0]
    first, second = np.triu_indices(length, k=MINIMUM_SEPARATION)
    labels = target[first, second]
    valid = labels >= 0
    first, second, labels = first[valid], second[valid], labels[valid]
    separation = second - first
    matrix = contact_scores(np.asarray(prediction, dtype=np.float32))
    above, below = (np.nan_to_num(matrix[pair], nan=-np.inf) for pair in ((first, second), (second, first)))
    row: list[float] = []
    for _, low, high in RANGES:
        inside = (separation >= low) & (separation <= (high if high is not None else length))
        row.extend(_precisions(above[inside], labels[inside], length))
    return ContactRow(tuple(row), count_as_original(above, below, labels, length))


def _depth(length: int, divisor: int | None) -> int:
    return FIXED_DEPTH if divisor is None else max(1, length // divisor)


def _precisions(scores: np.ndarray, labels: np.ndarray, length: int) -> list[float]:
    """P@k of the pairs of one range at each depth; ``nan`` without pairs."""
    if not labels.size:
        return [float("nan")] * len(DEPTHS)
    depths = [_depth(length, divisor) for _, divisor in DEPTHS]
    hits = expected_hits(scores, labels, depths)
    return [hit / min(depth, labels.size) for hit, depth in zip(hits, depths, strict=True)]


def precision_at_l5(target: Any, prediction: Any) -> float:
    """The ``L5`` metric: mean over proteins of P@L/5 at separations >= 6.

    Args:
        target: list of (L, L) label arrays.
        prediction: list of (L, L, 2) logits.
    """
    rows = [measure_contacts(np.asarray(p), np.asarray(t)) for t, p in zip(target, prediction, strict=True)]
    values = {metric.name: metric.value for metric in summarize_contacts(rows)}
    return values["precision_at_l5"]


def _definition(divisor: int | None, low: int, high: int | None) -> str:
    span = f"{low} to {high}" if high is not None else f"{low} or more"
    depth = str(FIXED_DEPTH) if divisor is None else "L" if divisor == 1 else f"L/{divisor}"
    return (
        f"precision of the best {depth} valid pairs at separation {span}, j > i, at least one pair, "
        "ties by expectation, averaged over proteins that have such a pair"
    )


def summarize_contacts(rows: Sequence[ContactRow], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """Means over proteins of the 20 precisions, followed by the original definitions."""
    precisions = np.asarray([row.precisions for row in rows], dtype=np.float64).reshape(-1, len(NAMES))
    defined = (~np.isnan(precisions)).astype(np.float64)
    table = np.where(np.isnan(precisions), 0.0, precisions)
    counted = defined.sum(axis=0).astype(np.int64).tolist()
    metrics = []
    for index, (total, count) in enumerate(zip(table.sum(axis=0).tolist(), counted, strict=True)):
        _, low, high = RANGES[index // len(DEPTHS)]
        value = total / count if count else float("nan")
        definition = _definition(DEPTHS[index % len(DEPTHS)][1], low, high)
        metrics.append(Metric(NAMES[index], value, count, definition, reason=_NO_PAIR))
    own = with_intervals(metrics, table, defined, bootstrap)
    return own + summarize_as_original([row.original for row in rows], bootstrap)
