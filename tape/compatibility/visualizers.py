"""TAPE's ``tape.visualization``: loggers of a run's metrics, with TensorBoard. wandb is not used."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from tape.runtime.tensorboard import TensorBoardWriter


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


def get(log_dir: str | Path, exp_name: str, local_rank: int, debug: bool = False) -> TAPEVisualizer:
    """The logger of a process: that of TensorBoard on the first one of a machine, else none."""
    kind = TBVisualizer if local_rank in (-1, 0) else DummyVisualizer
    return kind(log_dir, exp_name, debug)
