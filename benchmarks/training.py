"""What the benchmarks that finetune have in common: a ``tape-train`` in a process of its own, and means with ranges."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks.peers.protocol import ROOT
from tape.errors import ConfigError


def train(words: Sequence[str], values: Mapping[str, object], config: Sequence[str], no_cuda: bool) -> None:
    """Run ``tape-train``, over earlier results of the same name.

    Args:
        words: its positions, model type and task.
        values: its options with their values.
        config: values of ``--config``.
        no_cuda: compute on the CPU.

    Raises:
        ConfigError: it failed.
    """
    options = [str(word) for pair in values.items() for word in pair]
    options += [word for value in config for word in ("--config", value)]
    options += ["--no_cuda"] if no_cuda else []
    command = [sys.executable, str(ROOT / "tape_train.py"), *words, *options, "--overwrite"]
    if subprocess.run(command, check=False).returncode:
        raise ConfigError(f"{' '.join(command)} failed; its error is above")


def mean_and_range(values: Sequence[float], digits: int) -> str:
    """Mean, minimum and maximum of the runs."""
    return f"{statistics.fmean(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"
