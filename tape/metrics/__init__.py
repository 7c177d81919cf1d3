"""Metrics. Functions have TAPE's signature ``metric(target, prediction) -> float``."""

from __future__ import annotations

from .bootstrap import Bootstrap
from .by_task_type import NAMED_METRICS, TASK_TYPE_METRICS, TaskTypeMetrics
from .classes import accuracy
from .contacts import measure_contacts, precision_at_l5, summarize_contacts
from .metric import Metric
from .values import mean_absolute_error, mean_squared_error, pearsonr, spearmanr

__all__ = [
    "NAMED_METRICS",
    "TASK_TYPE_METRICS",
    "Bootstrap",
    "Metric",
    "TaskTypeMetrics",
    "accuracy",
    "mean_absolute_error",
    "mean_squared_error",
    "measure_contacts",
    "pearsonr",
    "precision_at_l5",
    "spearmanr",
    "summarize_contacts",
]
