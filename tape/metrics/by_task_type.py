"""The metrics of each task type: a function that measures one protein, and one that summarizes all proteins.

A measurement is a small row. The rows of all ranks are gathered in the order of the data set before they are
summarized, so that no metric depends on batches or ranks.
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
    """Maps the rows of all proteins, in the order of the data set, to metrics; a bootstrap adds intervals."""

    def __call__(self, rows: Sequence[Any], bootstrap: Bootstrap | None = None) -> list[Metric]: ...


@dataclass(frozen=True)
class TaskTypeMetrics:
    """The metrics of one task type.

    Attributes:
        measure: maps (prediction, target[, unmasked labels]) of one protein, without padding, to a small picklable row.
            The third argument is given if the data set has ``unmasked_labels(index)``.
        summarize: maps the rows of all proteins to metrics.
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

# Metrics that can be selected by name, as in TAPE and ProteinLM, and the task types that have them.
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
