"""The launcher of ``tape-train-distributed``."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tape.errors import ConfigError
from tape.runtime.elastic_launch import LaunchPlan, launch
from tape.runtime.rendezvous import RendezvousError


@pytest.mark.distributed
@pytest.mark.slow
def test_the_launcher_reports_the_errors_of_its_processes(
    run_script: Callable[..., Any],
    launch_script: Path,
    assert_clean_error: Callable[..., None],
    small_config: Path,
    write_split: Callable[..., Path],
    tmp_path: Path,
    free_port: int,
) -> None:
    words = ["transformer", "masked_language_modeling", "--model_config_file", small_config, "--num_train_epochs", 1]
    launcher = ["--nproc_per_node", 2, "--master_port", free_port, "--time_or_name", "d", "--batch_size", 4]
    write_split("pfam", "train", [{"primary": "AC"}, {"primary": "A1"}])
    data = write_split("pfam", "valid", [{"primary": "AC"}])
    result = run_script(launch_script, *words, *launcher, "--data_dir", data, cwd=tmp_path)
    assert_clean_error(result, "pfam_train.lmdb, record 1: unknown residue '1'", "training process")


def test_impossible_launches_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        LaunchPlan(nproc_per_node=0)
    with pytest.raises(ConfigError, match="--node_rank must be from 0 to 1, not 2"):
        LaunchPlan(nnodes=2, node_rank=2)


def test_a_port_in_use_is_named_by_the_launcher() -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(RendezvousError, match=f"MASTER_PORT={port} is in use on"):
            launch(LaunchPlan(master_port=port), print)


def test_an_address_that_is_not_a_host_is_refused_by_the_launcher() -> None:
    with pytest.raises(ConfigError, match="MASTER_ADDR=tcp://node1 is not a host"):
        launch(LaunchPlan(master_addr="tcp://node1"), print)
