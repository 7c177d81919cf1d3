"""Metrics. Functions have TAPE's signature ``metric(target, prediction) -> float``."""

from __future__ import annotations

from .bootstrap import Bootstrap
from .by_task_type import NAMED_METRICS, TASK_TYPE_METRICS, Summary, TaskTypeMetrics, metrics_of
from .classes import accuracy
from .contacts import measure_contacts, precision_at_l5, summarize_contacts
from .metric import Metric
from .named import auprc, auroc, balanced_accuracy, macro_f1, matthews_correlation, micro_f1
from .values import (
    mean_absolute_error,
    mean_squared_error,
    pearsonr,
    r_squared,
    root_mean_squared_error,
    spearmanr,
)

__all__ = [
    "NAMED_METRICS",
    "TASK_TYPE_METRICS",
    "Bootstrap",
    "Metric",
    "Summary",
    "TaskTypeMetrics",
    "accuracy",
    "auprc",
    "auroc",
    "balanced_accuracy",
    "macro_f1",
    "matthews_correlation",
    "mean_absolute_error",
    "mean_squared_error",
    "measure_contacts",
    "metrics_of",
    "micro_f1",
    "pearsonr",
    "precision_at_l5",
    "r_squared",
    "root_mean_squared_error",
    "spearmanr",
    "summarize_contacts",
]
