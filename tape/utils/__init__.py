"""Compatibility: the functions of tape-proteins 0.5's ``tape.utils``, from :mod:`tape.compatibility`."""

from __future__ import annotations

from .distributed_utils import barrier_if_distributed, reduce_scalar
from .setup_utils import setup_dataset, setup_distributed, setup_loader, setup_logging, setup_optimizer
from .utils import (
    IncrementalNPZ,
    MetricsAccumulator,
    check_is_dir,
    check_is_file,
    get_effective_batch_size,
    get_effective_num_gpus,
    get_expname,
    get_num_train_optimization_steps,
    int_or_str,
    set_random_seeds,
    wrap_cuda_oom_error,
    write_lmdb,
)

__all__ = [
    "IncrementalNPZ",
    "MetricsAccumulator",
    "barrier_if_distributed",
    "check_is_dir",
    "check_is_file",
    "get_effective_batch_size",
    "get_effective_num_gpus",
    "get_expname",
    "get_num_train_optimization_steps",
    "int_or_str",
    "reduce_scalar",
    "set_random_seeds",
    "setup_dataset",
    "setup_distributed",
    "setup_loader",
    "setup_logging",
    "setup_optimizer",
    "wrap_cuda_oom_error",
    "write_lmdb",
]
