"""Reads the predictions of an evaluation, results_SPLIT.pkl."""

from __future__ import annotations

from typing import Any

from tape.errors import DataError
from tape.evaluation.records import EvaluationRecord
from tape.io.restricted_pickle import restricted_loads
from tape.registry import registry
from tape.report.rows import Evaluated
from tape.tasks import TaskType

UNSUPERVISED_CONTACTS = "unsupervised_contact_prediction"

Results = list[dict[str, Any]]
_KEYS = {"id", "prediction", "target"}
_FORM = "metrics, and a list of id, prediction and target of each protein"


# A metric that only one type of task has, for tasks that are not registered here.
_TYPE_OF_METRIC = {
    "precision_at_l5": TaskType.RESIDUE_PAIR,
    "accuracy_per_protein": TaskType.RESIDUE_CLASS,
    "micro_f1": TaskType.MULTILABEL,
    "balanced_accuracy": TaskType.SEQUENCE_CLASS,
    "spearmanr": TaskType.VALUE,
}


def task_type_of(record: EvaluationRecord) -> TaskType | None:
    """The type of an evaluation's task, of a task that is not registered by its metrics; None if they don't show it."""
    if record.task == UNSUPERVISED_CONTACTS:
        return TaskType.RESIDUE_PAIR
    spec = registry.task_name_mapping.get(record.task)
    if spec is not None:
        return spec.task_type
    return next((kind for name, kind in _TYPE_OF_METRIC.items() if record.metric(name)), None)


def load_results(evaluation: Evaluated) -> Results:
    """The predictions of an evaluation, read as untrusted data; empty if the file does not exist.

    Raises:
        DataError: the file is damaged or has other content.
    """
    path = evaluation.results_file
    if not path.is_file():
        return []
    content = restricted_loads(path.read_bytes(), str(path))
    match content:
        case (dict(), [*results]) if all(isinstance(one, dict) and one.keys() >= _KEYS for one in results):
            return results
    raise DataError(f"{path}: not predictions as tape-eval writes them: {_FORM}")
