"""Reads the predictions of an evaluation, results_SPLIT.pkl."""

from __future__ import annotations

from typing import Any

from tape.errors import DataError
from tape.io.restricted_pickle import restricted_loads
from tape.registry import registry
from tape.report.rows import Evaluated
from tape.tasks import TaskType

UNSUPERVISED_CONTACTS = "unsupervised_contact_prediction"

Results = list[dict[str, Any]]
_KEYS = {"id", "prediction", "target"}
_FORM = "metrics, and a list of id, prediction and target of each protein"


def task_type_of(task: str) -> TaskType | None:
    """The type of a task; None for a third party's task that is not registered."""
    if task == UNSUPERVISED_CONTACTS:
        return TaskType.RESIDUE_PAIR
    spec = registry.task_name_mapping.get(task)
    return None if spec is None else spec.task_type


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
    raise DataError(f"{path}: not predictions as tape_eval.py writes them: {_FORM}")
