"""Metrics for Weights & Biases, as tape-proteins 0.5 logs them: for users who have set ``WANDB_PROJECT``.

0.5 called wandb whenever it was installed (bug 39 in docs/compatibility.md). Without the variable, it is not imported
here. Its other variables, such as ``WANDB_MODE=offline``, are wandb's own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tape.errors import ConfigError

_PROJECT = "WANDB_PROJECT"

logger = logging.getLogger(__name__)


class WandBWriter:
    """A run of wandb.

    Args:
        wandb: the module, of :func:`import_wandb`.
        directory: where wandb keeps its files.
        name: name of the run.
        config: settings of the run.

    Raises:
        ConfigError: wandb can't start the run.
    """

    def __init__(self, wandb: Any, directory: Path, name: str, config: Mapping[str, Any]) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(dir=str(directory), name=name, config=dict(config))
        except Exception as error:  # its errors have no base class that all versions share
            raise ConfigError(
                f"wandb can't log the run ({error}); unset {_PROJECT} to go on without it, or set WANDB_MODE=offline"
            ) from error

    def add_config(self, values: Mapping[str, Any]) -> None:
        """Add settings of the run."""
        self._run.config.update(dict(values))

    def watch(self, module: Any) -> None:
        """Log gradients of a module."""
        self._run.watch(module)

    def add_scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Log the values of a step as ``Group Name``, such as ``Train Loss``."""
        self._run.log({f"{group.capitalize()} {name.capitalize()}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def import_wandb() -> Any:
    """The module wandb; None unless ``WANDB_PROJECT`` is set, or with a warning if it is not installed."""
    if not os.environ.get(_PROJECT):
        return None
    try:
        import wandb
    except ImportError as error:
        logger.warning("%s is set, but wandb can't be used (%s): pip install 'proteinlm[wandb]'", _PROJECT, error)
        return None
    return wandb
