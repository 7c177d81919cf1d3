"""Which epoch of a run is the best: that of the lowest validation loss, or of the best value of another metric.

The loss of a classifier can rise while its accuracy still does: probabilities of wrong classes grow too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tape.errors import ConfigError
from tape.tasks import TASK_TYPE_TRAITS, TaskType

LOSS = "loss"
_LOWER_IS_BETTER = frozenset({LOSS, "perplexity"})


def check_metric(name: str, task_type: TaskType) -> None:
    """Check the value of ``--metric_for_best_model``.

    Raises:
        ConfigError: validation of this task type has no such metric in its log line. Names those it has.
    """
    known = TASK_TYPE_TRAITS[task_type].headline
    if name not in known:
        raise ConfigError(f"--metric_for_best_model {name}: for this task, choose one of {', '.join(known)}")


def criterion_of(valid: Mapping[str, float | None] | None, name: str) -> float | None:
    """What the best epoch has the lowest value of: the metric, or its negative if higher is better.

    Args:
        valid: the metrics of a validation; None: the epoch was not validated.
        name: one that :func:`check_metric` has accepted.

    Returns:
        None without validation, or if the metric is undefined.

    Raises:
        ConfigError: the validation has no such metric.
    """
    if valid is None:
        return None
    if name not in valid:
        raise ConfigError(f"--metric_for_best_model {name}: validation has only {', '.join(valid)}")
    value = valid[name]
    if value is None or math.isnan(value):
        return None
    return metric_of(value, name)


def metric_of(criterion: float, name: str) -> float:
    """The metric that a criterion stands for, and the other way round."""
    return criterion if name in _LOWER_IS_BETTER else -criterion
