"""Compatibility: tape-proteins 0.5's ``tape.utils.setup_utils``, from :mod:`tape.compatibility`."""

from __future__ import annotations

from tape.compatibility.loaders import BucketBatchSampler, get_effective_batch_size, setup_dataset, setup_loader
from tape.compatibility.processes import setup_distributed, setup_logging, setup_optimizer

__all__ = [
    "BucketBatchSampler",
    "get_effective_batch_size",
    "setup_dataset",
    "setup_distributed",
    "setup_loader",
    "setup_logging",
    "setup_optimizer",
]
