"""Compatibility: tape-proteins 0.5's ``tape.utils.utils``, from :mod:`tape.compatibility`."""

from __future__ import annotations

from tape.compatibility.accumulators import MetricsAccumulator
from tape.compatibility.files import IncrementalNPZ, check_is_dir, check_is_file, get_expname, int_or_str, write_lmdb
from tape.compatibility.loaders import (
    get_effective_batch_size,
    get_effective_num_gpus,
    get_num_train_optimization_steps,
)
from tape.compatibility.processes import set_random_seeds, wrap_cuda_oom_error

__all__ = [
    "IncrementalNPZ",
    "MetricsAccumulator",
    "check_is_dir",
    "check_is_file",
    "get_effective_batch_size",
    "get_effective_num_gpus",
    "get_expname",
    "get_num_train_optimization_steps",
    "int_or_str",
    "set_random_seeds",
    "wrap_cuda_oom_error",
    "write_lmdb",
]
