"""``tape.utils``: device, seeds, log, optimizer and the message of exhausted memory."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from tape import utils
from tape.errors import ConfigError, ProteinLMError


def test_one_process_with_one_device() -> None:
    device, n_gpu, is_master = utils.setup_distributed(local_rank=-1, no_cuda=True)
    assert (device, n_gpu, is_master) == (torch.device("cpu"), 1, True)
    with pytest.raises(ConfigError, match=r"run_train_distributed, or torchrun"):
        utils.setup_distributed(0, True)
    utils.barrier_if_distributed()
    assert utils.reduce_scalar(1.5) == 1.5


def test_the_log_has_a_level_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    before = root.level
    try:
        utils.setup_logging(-1, tmp_path, "WARN")
        assert root.level == logging.WARNING
        handlers = root.handlers[:]
        logging.getLogger("mine").warning("seen")
        utils.setup_logging(1, None, logging.DEBUG)
        assert root.level == logging.WARNING
        assert root.handlers == handlers
    finally:
        root.setLevel(before)
        for handler in root.handlers:
            handler.close()
    assert (tmp_path / "log").read_text().endswith("WARNING - mine -   seen\n")


def test_matrices_decay_and_biases_do_not() -> None:
    optimizer = utils.setup_optimizer(nn.Linear(3, 2), 0.5)
    groups = [(group["weight_decay"], group["lr"], len(group["params"])) for group in optimizer.param_groups]
    assert groups == [(0.01, 0.5, 1), (0.0, 0.5, 1)]


def test_exhausted_memory_is_explained_in_a_block_and_in_a_function() -> None:
    message = r"out of GPU memory in a pass; give a smaller batch_size than 64, or more gradient_accumulation_steps"
    with pytest.raises(ProteinLMError, match=message), utils.wrap_cuda_oom_error(-1, 64, 1, 2):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    @utils.wrap_cuda_oom_error(-1, 64)
    def embed() -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(ProteinLMError, match="give a smaller batch_size than 64$"):
        embed()
