"""The metrics of each task type: a function that measures one protein, and one that summarizes all proteins.

A measurement is a small row. The rows of all ranks are gathered in the order of the data set before they are
summarized, so that no metric depends on batches or ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tape.tasks import TaskType

from .bootstrap import Bootstrap, Estimates
from .classes import (
    count_confusions,
    estimate_proteins,
    estimate_residues,
    measure_protein,
    measure_residues,
    measure_tokens,
    summarize_proteins,
    summarize_residues,
    summarize_tokens,
)
from .contacts import measure_contacts, summarize_contacts
from .geometry import measure_geometry, summarize_geometry
from .metric import Metric
from .multilabel import estimate_labels, measure_labels, summarize_labels
from .several_values import SeveralValues
from .values import estimate_values, measure_value, summarize_values


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
        estimate: the same metrics with the statistic that computes them for resamples; None: the metrics of a resample
            are summarized from its rows.
        confusions: maps the rows to a confusion matrix (C, C) of true and predicted classes, None without a label; None
            for a task type without classes.
    """

    measure: Callable[..., Any]
    summarize: Summary
    estimate: Callable[[Sequence[Any]], Estimates] | None = None
    confusions: Callable[[Sequence[Any]], np.ndarray | None] | None = None


TASK_TYPE_METRICS: dict[TaskType, TaskTypeMetrics] = {
    TaskType.VALUE: TaskTypeMetrics(measure_value, summarize_values, estimate_values),
    TaskType.SEQUENCE_CLASS: TaskTypeMetrics(measure_protein, summarize_proteins, estimate_proteins, count_confusions),
    TaskType.MULTILABEL: TaskTypeMetrics(measure_labels, summarize_labels, estimate_labels),
    TaskType.RESIDUE_CLASS: TaskTypeMetrics(measure_residues, summarize_residues, estimate_residues, count_confusions),
    TaskType.RESIDUE_PAIR: TaskTypeMetrics(measure_contacts, summarize_contacts),
    TaskType.MASKED_LM: TaskTypeMetrics(measure_tokens, summarize_tokens),
    TaskType.LANGUAGE_MODEL: TaskTypeMetrics(measure_tokens, summarize_tokens),
    TaskType.PAIR_GEOMETRY: TaskTypeMetrics(measure_geometry, summarize_geometry),
}


def metrics_of(task_type: TaskType, columns: Sequence[str] = ()) -> TaskTypeMetrics:
    """The metrics of a task type; of a model with several targets, those of each target and means.

    Args:
        task_type: type of the task.
        columns: names of several values that the model predicts, see :attr:`tape.targets.Target.value_names`; empty:
            it predicts one value, or has another task type.
    """
    if task_type == TaskType.VALUE and columns:
        several = SeveralValues(tuple(columns))
        return TaskTypeMetrics(several.measure, several.summarize, several.estimate)
    return TASK_TYPE_METRICS[task_type]


_VALUES = frozenset({TaskType.VALUE})
_CLASSES = frozenset({TaskType.SEQUENCE_CLASS, TaskType.RESIDUE_CLASS})

# Metrics that can be selected by name, and the task types that have them. TAPE's and ProteinLM's are "mse", "mae",
# "spearmanr", "accuracy" and "L5".
NAMED_METRICS: dict[str, frozenset[TaskType]] = {
    **dict.fromkeys(("mse", "mae", "rmse", "r2", "spearmanr", "pearsonr"), _VALUES),
    "accuracy": _CLASSES | {TaskType.RESIDUE_PAIR, TaskType.MASKED_LM, TaskType.LANGUAGE_MODEL},
    **dict.fromkeys(("balanced_accuracy", "mcc"), _CLASSES),
    **dict.fromkeys(("macro_f1", "auroc", "auprc"), _CLASSES | {TaskType.MULTILABEL}),
    "micro_f1": frozenset({TaskType.MULTILABEL}),
    "L5": frozenset({TaskType.RESIDUE_PAIR, TaskType.PAIR_GEOMETRY}),
}
