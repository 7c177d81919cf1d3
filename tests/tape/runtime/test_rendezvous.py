"""Processes that don't find each other get one error each, which names MASTER_ADDR and MASTER_PORT."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tape.runtime.launch import Launch
from tape.runtime.rendezvous import RendezvousError, find_endpoint, serves_store
from tests.support.ranks import free_port

TWO = Launch(0, 2, 0, "env://", "torchrun")

# Joins as rank RANK of 2 within 2 s, and prints the error as a command does.
_JOIN = """
import os, sys
from datetime import timedelta
from tape.errors import run_cli
from tape.runtime.distributed import join_process_group
from tape.runtime.launch import read_launch
sys.exit(run_cli(lambda: join_process_group("gloo", read_launch(os.environ), timedelta(seconds=2))))
"""


@pytest.mark.parametrize("name", ["MASTER_ADDR", "MASTER_PORT"])
def test_a_missing_variable_is_named(name: str) -> None:
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    del environment[name]
    with pytest.raises(RendezvousError, match=f"{name} is not set, but WORLD_SIZE=2: .*torchrun.*export {name}="):
        find_endpoint(TWO, environment)


def test_a_host_that_cannot_be_resolved_is_named() -> None:
    environment = {"MASTER_ADDR": "no-such-host.invalid", "MASTER_PORT": "29500"}
    with pytest.raises(RendezvousError, match="MASTER_ADDR=no-such-host.invalid can't be resolved on"):
        find_endpoint(TWO, environment)


def test_processes_that_meet_in_a_file_have_no_endpoint() -> None:
    assert find_endpoint(Launch(0, 2, 0, "file:///shared/run", "test"), {}) is None


def test_rank_0_listens_unless_torchrun_does() -> None:
    assert serves_store(TWO, {})
    assert not serves_store(Launch(1, 2, 1), {})
    assert not serves_store(TWO, {"TORCHELASTIC_USE_AGENT_STORE": "True"})


@pytest.fixture
def join() -> Callable[[int, int], str]:
    """`join(rank, port)`: what a process that can't join prints; it must be one line."""

    def run(rank: int, port: int) -> str:
        environment = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-c", _JOIN]
        result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1, result.stderr
        return result.stderr

    return run


def test_a_port_in_use_is_named(join: Callable[[int, int], str]) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert f"error: MASTER_PORT={port} is in use on" in join(0, port)


def test_rank_0_does_not_wait_forever_for_the_others(join: Callable[[int, int], str]) -> None:
    port = free_port()
    shown = join(0, port)
    assert f"not all of the 2 processes joined at MASTER_ADDR=127.0.0.1, MASTER_PORT={port} within 2 s" in shown
    assert "1/2 clients joined" in shown


def test_the_others_do_not_wait_forever_for_rank_0(join: Callable[[int, int], str]) -> None:
    port = free_port()
    shown = join(1, port)
    assert f"error: rank 1 on {socket.gethostname()}: no answer at MASTER_ADDR=127.0.0.1, MASTER_PORT={port}" in shown
    assert "Connection refused" in shown
