"""The scale by which the values of a task are standardized (``--standardize``); a user's table has its own target."""

from __future__ import annotations

from pathlib import Path

from tape.configs import CONFIG_NAME, ProteinConfig
from tape.errors import CheckpointError, ConfigError
from tape.tables.scale import mean_and_deviation
from tape.targets import Scale, value_scales

from .data import TrainingData

_INSTEAD = "restore the file, or start a new run from this model without --resume_from_checkpoint"


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
        CheckpointError: its configuration has none, or is that of a model of a user's table. Names it.
        ProteinLMError: its configuration is missing or damaged.
    """
    file = directory / CONFIG_NAME
    config = ProteinConfig.from_json_file(file)
    try:
        scales = value_scales(config)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}; {_INSTEAD}") from error
    # value_scales() has (0, 1) of a model without a scale, and the scales of the columns of a table
    if getattr(config, "value_scale", None) is None or getattr(config, "target", None) is not None:
        raise CheckpointError(
            f"{file}: must have value_scale, which a run with --standardize stores, and no target of a table;"
            f" {_INSTEAD}"
        )
    return scales[0]
