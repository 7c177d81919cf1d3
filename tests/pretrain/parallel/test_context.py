"""Process groups and their backend."""

from __future__ import annotations

import os

import pytest
import torch

from pretrain.parallel import ParallelDims, choose_backend, open_parallel_context
from pretrain.parallel.context import ParallelConfig, enable_flight_recorder
from tape.runtime.launch import Launch


def test_the_backend_follows_the_device() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_backend(None, cpu) == ("gloo", None)
    assert choose_backend(None, gpu) == ("nccl", None)
    assert choose_backend("gloo", gpu) == ("gloo", None)
    backend, notice = choose_backend("nccl", cpu)
    assert (backend, "needs CUDA" in str(notice)) == ("gloo", True)


def test_nccl_gets_torchs_flight_recorder() -> None:
    environment: dict[str, str] = {}
    enable_flight_recorder(environment)
    assert int(environment["TORCH_FR_BUFFER_SIZE"]) > 0
    assert environment["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"


@pytest.mark.parametrize("name", ["TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"])
def test_settings_of_the_flight_recorder_are_kept(name: str) -> None:
    environment = {name: "0", "TORCH_NCCL_DUMP_ON_TIMEOUT": "0"}
    enable_flight_recorder(environment)
    assert environment == {name: "0", "TORCH_NCCL_DUMP_ON_TIMEOUT": "0"}


def test_other_backends_leave_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_FR_BUFFER_SIZE", raising=False)
    launch = Launch(rendezvous="tcp://127.0.0.1:0")
    timeout = ParallelConfig().timeout
    with open_parallel_context(ParallelDims(), launch, "gloo", torch.device("cpu"), timeout) as context:
        assert context.is_main

    assert "TORCH_FR_BUFFER_SIZE" not in os.environ
