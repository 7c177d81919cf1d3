"""TAPE's ``tape.visualization``: loggers of a run's metrics, with TensorBoard, or wandb if ``WANDB_PROJECT`` is set."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from tape.errors import ConfigError
from tape.runtime.tensorboard import TensorBoardWriter
from tape.runtime.wandb_log import WandBWriter, import_wandb


class TAPEVisualizer(ABC):
    """Stores metrics by split and step.

    Args:
        log_dir: directory of all runs.
        exp_name: name of this run.
        debug: unused, part of TAPE's signature.
    """

    @abstractmethod
    def __init__(self, log_dir: str | Path, exp_name: str, debug: bool = False) -> None: ...

    @abstractmethod
    def log_config(self, config: Mapping[str, Any]) -> None:
        """Store a configuration, where there is a place for it."""

    @abstractmethod
    def watch(self, model: nn.Module) -> None:
        """Store weights and gradients, where there is a place for them."""

    @abstractmethod
    def log_metrics(self, metrics_dict: Mapping[str, float], split: str, step: int) -> None:
        """Store the values of a step."""


class DummyVisualizer(TAPEVisualizer):
    """Stores nothing."""

    def __init__(self, log_dir: str | Path = "", exp_name: str = "", debug: bool = False) -> None: ...

    def log_config(self, config: Mapping[str, Any]) -> None: ...

    def watch(self, model: nn.Module) -> None: ...

    def log_metrics(self, metrics_dict: Mapping[str, float], split: str, step: int) -> None: ...


class TBVisualizer(DummyVisualizer):
    """Writes the metrics to an event file of TensorBoard in ``log_dir/exp_name``.

    Raises:
        OutputError: the directory can't be written.
    """

    def __init__(self, log_dir: str | Path, exp_name: str, debug: bool = False) -> None:
        self._writer = TensorBoardWriter(Path(log_dir) / exp_name)
        weakref.finalize(self, self._writer.close)  # TAPE has no method that ends a log

    def log_metrics(self, metrics_dict: Mapping[str, float], split: str, step: int) -> None:
        self._writer.add_scalars(split, dict(metrics_dict), step)


class WandBVisualizer(TAPEVisualizer):
    """Logs to wandb.

    Args:
        log_dir, exp_name, debug: as of the base class.

    Raises:
        ConfigError: ``WANDB_PROJECT`` is not set, wandb is not installed, or it can't start the run.
    """

    def __init__(self, log_dir: str | Path, exp_name: str, debug: bool = False) -> None:
        wandb = import_wandb()
        if wandb is None:
            raise ConfigError(
                "WandBVisualizer needs the variable WANDB_PROJECT and wandb: pip install 'proteinlm[wandb]'"
            )
        self._run = WandBWriter(wandb, Path(log_dir), exp_name, {})
        weakref.finalize(self, self._run.close)  # TAPE has no method that ends a log

    def log_config(self, config: Mapping[str, Any]) -> None:
        self._run.add_config(config)

    def watch(self, model: nn.Module) -> None:
        self._run.watch(model)

    def log_metrics(self, metrics_dict: Mapping[str, float], split: str, step: int) -> None:
        self._run.add_scalars(split, metrics_dict, step)


def get(log_dir: str | Path, exp_name: str, local_rank: int, debug: bool = False) -> TAPEVisualizer:
    """The logger of a process: on the first one of a machine that of wandb or TensorBoard, else none."""
    if local_rank not in (-1, 0):
        return DummyVisualizer(log_dir, exp_name, debug)
    kind = TBVisualizer if import_wandb() is None else WandBVisualizer
    return kind(log_dir, exp_name, debug)
