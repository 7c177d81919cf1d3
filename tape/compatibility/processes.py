"""TAPE's set-up of a process and an optimizer, from ``tape.utils``. There is one process with one device.

Several processes train with :func:`tape.main.run_train_distributed`.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from tape.cli.options import log_level as level_of
from tape.errors import ConfigError
from tape.finetuning.config import AdamWConfig
from tape.finetuning.optimizer import AdamW, parameter_groups
from tape.finetuning.seeding import seed_all
from tape.runtime.distributed import choose_device
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory
from tape.runtime.process import DATE_FORMAT, LOG_FORMAT


def check_single_process(local_rank: int) -> None:
    """Check that this is the only process.

    Raises:
        ConfigError: ``local_rank`` is that of one of several processes.
    """
    if local_rank != -1:
        raise ConfigError(
            f"local_rank is {local_rank}, but the functions of tape.utils and tape.training are for a single process"
            " (local_rank -1); several processes train with tape.main.run_train_distributed, or torchrun tape_train.py"
        )


def setup_distributed(local_rank: int, no_cuda: bool) -> tuple[torch.device, int, bool]:
    """(device, 1, True): the device, the number of devices, and whether the process writes files.

    Raises:
        ConfigError: see :func:`check_single_process`.
    """
    check_single_process(local_rank)
    return choose_device(0, no_cuda), 1, True


def barrier_if_distributed() -> None:
    """Does nothing, since there is one process."""


def reduce_scalar(scalar: float) -> float:
    """The mean over the processes: ``scalar``, since there is one."""
    return scalar


def set_random_seeds(seed: int, n_gpu: int = 0) -> None:
    """Seed Python, numpy and PyTorch; ``n_gpu`` is ignored, since PyTorch seeds all devices."""
    seed_all(seed)


def setup_logging(local_rank: int, save_path: str | Path | None = None, log_level: str | int | None = None) -> None:
    """Log to stdout and, with ``save_path``, to the file ``log`` there, unless the program logs already.

    Args:
        local_rank: other ranks than -1 and 0 log warnings only.
        save_path: directory of the run.
        log_level: name or number; default INFO.
    """
    level = logging.INFO if log_level is None else level_of(str(log_level))
    root = logging.getLogger()
    root.setLevel(level if local_rank in (-1, 0) else max(level, logging.WARNING))
    if root.hasHandlers():
        return
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if save_path is not None:
        handlers.append(logging.FileHandler(Path(save_path) / "log", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(LOG_FORMAT, DATE_FORMAT))
        root.addHandler(handler)


def setup_optimizer(model: nn.Module, learning_rate: float) -> AdamW:
    """AdamW with TAPE's weight decay for matrices, and none for biases and norms."""
    return AdamW(parameter_groups(model, AdamWConfig.weight_decay), lr=learning_rate)


def wrap_cuda_oom_error(
    local_rank: int, batch_size: int, n_gpu: int = 1, gradient_accumulation_steps: int | None = None
) -> AbstractContextManager[None]:
    """A context manager, or decorator, that names what helps if the memory does not suffice.

    Raises:
        OutOfMemoryError: there is not enough memory.
    """
    smaller = f"a smaller batch_size than {batch_size}"
    divided = () if gradient_accumulation_steps is None else ("more gradient_accumulation_steps",)
    return explain_out_of_memory("a pass", None, MemoryRemedies(always=(smaller, *divided)))
