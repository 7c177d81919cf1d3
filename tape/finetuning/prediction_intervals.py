"""The intervals of predictions that a model of a user's table stores; see :mod:`tape.metrics.prediction_intervals`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from tape.metrics.prediction_intervals import half_widths
from tape.targets import target_of
from tape.tasks import TaskType


def keep_half_widths(model: nn.Module, measured: Sequence[Any] | None) -> None:
    """Set the half widths of the target in a model's configuration, which is saved with its weights.

    Args:
        model: a model; one that was not trained on values of a table stays as it is.
        measured: (prediction, value) of each protein of ``valid``, with these weights; None: there are none yet.
    """
    config: Any = getattr(model, "config", None)
    target = target_of(config)
    if target is None or target.task_type != TaskType.VALUE:
        return
    widths = () if measured is None else half_widths(measured, len(target.columns))
    config.target = replace(target, half_widths=widths).to_dict()
