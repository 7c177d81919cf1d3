"""Which metrics a task's shape has: one function that reads an example, one that sums up the rows of all examples.

The rows of several ranks are put together in the order of the data set before summing up, so a number never depends on
batches or ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..tasks import TaskShape
from .bootstrap import Bootstrap
from .classes import measure_protein, measure_residues, summarise_proteins, summarise_residues, summarise_tokens
from .contacts import measure_contacts, summarise_contacts
from .definitions import Metric
from .geometry import measure_geometry, summarise_geometry
from .values import measure_value, summarise_values


class Summary(Protocol):
    """Rows of all proteins, in the order of the data set -> metrics; with a bootstrap, with intervals."""

    def __call__(self, rows: Sequence[Any], bootstrap: Bootstrap | None = None) -> list[Metric]: ...


@dataclass(frozen=True)
class ShapeMetrics:
    """How examples of one shape are measured.

    Attributes:
        measure: (prediction, target[, all labels]) of one protein, without padding -> a small picklable row. The third
            is given where the data set has ``unmasked_labels(index)``.
        summarise: sums up the rows.
    """

    measure: Callable[..., Any]
    summarise: Summary


SHAPE_METRICS: dict[TaskShape, ShapeMetrics] = {
    TaskShape.VALUE: ShapeMetrics(measure_value, summarise_values),
    TaskShape.SEQUENCE_CLASS: ShapeMetrics(measure_protein, summarise_proteins),
    TaskShape.RESIDUE_CLASS: ShapeMetrics(measure_residues, summarise_residues),
    TaskShape.RESIDUE_PAIR: ShapeMetrics(measure_contacts, summarise_contacts),
    TaskShape.MASKED_LM: ShapeMetrics(measure_residues, summarise_tokens),
    TaskShape.LANGUAGE_MODEL: ShapeMetrics(measure_residues, summarise_tokens),
    TaskShape.PAIR_GEOMETRY: ShapeMetrics(measure_geometry, summarise_geometry),
}

# The metrics that TAPE and ProteinLM give a name to, and the shapes that have them.
NAMED_METRICS: dict[str, frozenset[TaskShape]] = {
    "mse": frozenset({TaskShape.VALUE}),
    "mae": frozenset({TaskShape.VALUE}),
    "spearmanr": frozenset({TaskShape.VALUE}),
    "accuracy": frozenset(
        {
            TaskShape.SEQUENCE_CLASS,
            TaskShape.RESIDUE_CLASS,
            TaskShape.RESIDUE_PAIR,
            TaskShape.MASKED_LM,
            TaskShape.LANGUAGE_MODEL,
        }
    ),
    "L5": frozenset({TaskShape.RESIDUE_PAIR, TaskShape.PAIR_GEOMETRY}),
}
