"""Which metrics a task's shape has: one function that reads an example, one that sums up the rows of all examples.

The rows of several ranks are put together in the order of the data set before summing up, so a number never depends on
batches or ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tape.tasks import TaskType

from .bootstrap import Bootstrap
from .classes import measure_protein, measure_residues, summarize_proteins, summarize_residues, summarize_tokens
from .contacts import measure_contacts, summarize_contacts
from .geometry import measure_geometry, summarize_geometry
from .metric import Metric
from .values import measure_value, summarize_values


class Summary(Protocol):
    """Rows of all proteins, in the order of the data set -> metrics; with a bootstrap, with intervals."""

    def __call__(self, rows: Sequence[Any], bootstrap: Bootstrap | None = None) -> list[Metric]: ...


@dataclass(frozen=True)
class TaskTypeMetrics:
    """How examples of one shape are measured.

    Attributes:
        measure: (prediction, target[, all labels]) of one protein, without padding -> a small picklable row. The third
            is given where the data set has ``unmasked_labels(index)``.
        summarise: sums up the rows.
    """

    measure: Callable[..., Any]
    summarize: Summary


TASK_TYPE_METRICS: dict[TaskType, TaskTypeMetrics] = {
    TaskType.VALUE: TaskTypeMetrics(measure_value, summarize_values),
    TaskType.SEQUENCE_CLASS: TaskTypeMetrics(measure_protein, summarize_proteins),
    TaskType.RESIDUE_CLASS: TaskTypeMetrics(measure_residues, summarize_residues),
    TaskType.RESIDUE_PAIR: TaskTypeMetrics(measure_contacts, summarize_contacts),
    TaskType.MASKED_LM: TaskTypeMetrics(measure_residues, summarize_tokens),
    TaskType.LANGUAGE_MODEL: TaskTypeMetrics(measure_residues, summarize_tokens),
    TaskType.PAIR_GEOMETRY: TaskTypeMetrics(measure_geometry, summarize_geometry),
}

# The metrics that TAPE and ProteinLM give a name to, and the shapes that have them.
NAMED_METRICS: dict[str, frozenset[TaskType]] = {
    "mse": frozenset({TaskType.VALUE}),
    "mae": frozenset({TaskType.VALUE}),
    "spearmanr": frozenset({TaskType.VALUE}),
    "accuracy": frozenset(
        {
            TaskType.SEQUENCE_CLASS,
            TaskType.RESIDUE_CLASS,
            TaskType.RESIDUE_PAIR,
            TaskType.MASKED_LM,
            TaskType.LANGUAGE_MODEL,
        }
    ),
    "L5": frozenset({TaskType.RESIDUE_PAIR, TaskType.PAIR_GEOMETRY}),
}
