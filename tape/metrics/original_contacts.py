"""P@L/5 as defined by the original code, for comparison with published numbers (bugs 13 and 15 in
docs/compatibility.md).

There are two definitions, both at separations >= 6 and with k = L // 5 (no pair of a protein under 5 residues):

- ``batch_micro`` (``compute_precision_at_l5`` of TAPE and ProteinLM): number of correct pairs of a batch over number of
  selected pairs of a batch, averaged over batches, so that long proteins have a larger weight. The original's batches
  are in random order. Here, they are 8 proteins (the batch size of its script) of similar length, as in its sampler.
- ``double_counted`` (ProteinLM's finetuning with Megatron-LM, which published .75 for the 3B model): both (i, j) and
  (j, i) are ranked. If the prediction is symmetric, each pair is selected twice, so k entries are only k / 2 pairs.

The original code can also select invalid pairs, and adds their label -1 to the number of correct pairs. Here, only
valid pairs are selected, all of them if there are fewer than k. Ties count by their expectation, see
:func:`expected_hits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .bootstrap import Bootstrap, with_intervals
from .metric import Metric

BATCH_SIZE = 8


class OriginalCounts(NamedTuple):
    """Correct and selected pairs of one protein, and correct and selected matrix entries. Correct ones are expected
    numbers: whole ones without ties."""

    length: int
    correct: float
    chosen: int
    correct_twice: float
    chosen_twice: int


def count_as_original(above: np.ndarray, below: np.ndarray, labels: np.ndarray, length: int) -> OriginalCounts:
    """Count the selected and the correct pairs of one protein.

    Args:
        above: (P,) scores of the valid pairs (i, j), j - i >= 6.
        below: (P,) scores of (j, i) for the same pairs.
        labels: (P,) in {0, 1}.
        length: number of residues.
    """
    k = length // 5
    (once,) = expected_hits(above, labels, [k])
    (twice,) = expected_hits(np.concatenate([above, below]), np.concatenate([labels, labels]), [k])
    return OriginalCounts(length, once, min(k, labels.size), twice, min(k, 2 * labels.size))


def summarize_as_original(rows: Sequence[OriginalCounts], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """The metrics by the original definitions. Means over batches have no interval, as a resample has no batches."""
    table = np.asarray(rows, dtype=np.float64).reshape(-1, len(OriginalCounts._fields))
    length, correct, chosen, correct_twice, chosen_twice = table.T
    order = np.argsort(length, kind="stable")
    counted = chosen_twice > 0
    precision = np.divide(correct_twice, chosen_twice, out=np.zeros(len(table)), where=counted)
    per_protein = Metric(
        "precision_at_l5_double_counted",
        float(precision[counted].mean()) if counted.any() else float("nan"),
        int(counted.sum()),
        "precision of the best L//5 entries (i, j) and (j, i) at separation 6 or more, each pair counted twice, "
        "averaged over proteins",
    )
    batched = f"sum over a batch of {BATCH_SIZE} proteins of similar length over its chosen, averaged over batches"
    return [
        Metric(
            "precision_at_l5_batch_micro",
            *_batch_means(correct[order], chosen[order]),
            f"correct pairs among each protein's best L//5 valid pairs at separation 6 or more, j > i: {batched}",
        ),
        *with_intervals([per_protein], precision[:, None], counted[:, None].astype(np.float64), bootstrap),
        Metric(
            "precision_at_l5_double_counted_batch_micro",
            *_batch_means(correct_twice[order], chosen_twice[order]),
            f"correct entries among each protein's best L//5, each pair counted twice: {batched}",
        ),
    ]


def _batch_means(correct: np.ndarray, chosen: np.ndarray) -> tuple[float, int]:
    """Mean over batches of the ratio of sums, and number of proteins with a selected pair."""
    starts = np.arange(0, len(correct), BATCH_SIZE)
    if not len(starts):
        return float("nan"), 0
    batch_correct, batch_chosen = np.add.reduceat(correct, starts), np.add.reduceat(chosen, starts)
    kept = batch_chosen > 0
    value = float(np.mean(batch_correct[kept] / batch_chosen[kept])) if kept.any() else float("nan")
    return value, int(np.sum(chosen > 0))


def expected_hits(scores: np.ndarray, labels: np.ndarray, depths: Sequence[int]) -> list[float]:
    """Numbers of contacts among the pairs with the highest scores, as expectations over the order of equal scores.

    If several pairs share the k-th highest score, any of them may be among the first k: each counts with the same
    fraction, so that the result depends neither on the order of the pairs nor on how a sort breaks ties. With constant
    scores, it is k times the fraction of contacts.

    Args:
        scores: (N,) scores, not ``nan``.
        labels: (N,) in {0, 1}.
        depths: numbers k of pairs; all pairs are selected if there are fewer.

    Returns:
        One number per depth; whole numbers unless a tie is at the k-th pair.
    """
    deepest = min(max(depths), scores.size)
    if deepest < 1:
        return [0.0 for _ in depths]
    # a partition and a sort of the candidates is faster than a full sort
    bound = np.partition(scores, -deepest)[-deepest]
    candidates = np.flatnonzero(scores >= bound)
    order = candidates[np.argsort(-scores[candidates], kind="stable")]
    ascending = -scores[order]
    contacts = np.concatenate([[0], np.cumsum(labels[order] == 1)])
    hits = []
    for depth in depths:
        k = min(depth, scores.size)
        if k < 1:
            hits.append(0.0)
            continue
        first, last = (int(np.searchsorted(ascending, ascending[k - 1], side)) for side in ("left", "right"))
        tied = int(contacts[last] - contacts[first])
        hits.append(float(contacts[first] + (k - first) * tied / (last - first)))
    return hits
