"""Metrics of the predicted geometry of residue pairs: accuracy of the bins, and precision of contacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .bootstrap import Bootstrap, ratio_of_sums, with_intervals
from .contacts import MINIMUM_SEPARATION, ContactRow, measure_contacts, summarize_contacts
from .metric import Metric

# output -> label that is ignored
_IGNORED = {"dist": -1, "omega": 0, "theta": 0, "phi": 0}
_CONTACT_BINS = slice(1, 13)  # 2 to 8 Angstrom in steps of 0.5; bin 0 is beyond 20 Angstrom


class GeometryRow(NamedTuple):
    """Measurements of one protein: (correct, scored) pairs of each output, and contact precisions."""

    counts: tuple[tuple[int, int], ...]
    contacts: ContactRow


def measure_geometry(prediction: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray]) -> GeometryRow:
    """Measure one protein.

    Args:
        prediction: ``p_dist`` (L, L, 37), ``p_omega`` (L, L, 25), ``p_theta`` (L, L, 25), ``p_phi`` (L, L, 13).
        target: ``dist``, ``omega``, ``theta``, ``phi``, (L, L) bins.
    """
    counts = []
    for name, ignored in _IGNORED.items():
        counted = target[name] != ignored
        correct = prediction[f"p_{name}"].argmax(-1)[counted] == target[name][counted]
        counts.append((int(correct.sum()), int(correct.size)))
    distance = target["dist"]
    contact = np.where(distance == -1, -1, (distance >= _CONTACT_BINS.start) & (distance < _CONTACT_BINS.stop))
    position = np.arange(len(distance))
    contact[np.abs(position[:, None] - position) < MINIMUM_SEPARATION] = -1
    return GeometryRow(tuple(counts), measure_contacts(prediction["p_dist"][..., _CONTACT_BINS].sum(-1), contact))


def summarize_geometry(rows: Sequence[GeometryRow], bootstrap: Bootstrap | None = None) -> list[Metric]:
    """Accuracy of each output over labeled pairs, followed by contact precisions (C-beta within 8 Angstrom)."""
    table = np.array([row.counts for row in rows], dtype=np.float64).reshape(len(rows), len(_IGNORED), 2)
    correct, counted = table[..., 0], table[..., 1]
    values = ratio_of_sums(correct.sum(0), counted.sum(0))
    metrics = [
        Metric(f"accuracy_{name}", float(value), int(n), f"fraction of residue pairs in the correct bin of {name}")
        for name, value, n in zip(_IGNORED, values, counted.sum(0), strict=True)
    ]
    metrics = with_intervals(metrics, correct, counted, bootstrap)
    return metrics + summarize_contacts([row.contacts for row in rows], bootstrap)
