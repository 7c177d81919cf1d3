"""The scale by which the values of a task are standardized (``--standardize``); a user's table has its own target."""

from __future__ import annotations

from pathlib import Path

from tape.configs import CONFIG_NAME, ProteinConfig
from tape.tables.scale import mean_and_deviation
from tape.targets import Scale, value_scales

from .data import TrainingData


def training_scale(data: TrainingData, task: str) -> Scale:
    """Mean and standard deviation of the values of the proteins trained on, for ``value_scale`` of ``config.json``.

    Args:
        data: the proteins of a run.
        task: name of the task, for messages.

    Raises:
        DataError: a value is not finite, or all are equal.
    """
    return mean_and_deviation([float(target) for target in data.targets()], f"the value of {task}")


def stored_scale(directory: Path) -> Scale:
    """``value_scale`` of a saved epoch, which its weights have been trained with.

    Raises:
        ProteinLMError: its configuration is missing or damaged.
    """
    (scale,) = value_scales(ProteinConfig.from_json_file(directory / CONFIG_NAME))
    return scale
