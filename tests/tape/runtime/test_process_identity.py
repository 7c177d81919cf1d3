"""The identity of processes, and the launcher of a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tape.runtime.process_identity import find_launcher, identify

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

_PRINT_LAUNCHER = (
    "import os; from tape.runtime.process_identity import find_launcher; print(find_launcher(os.environ).number)"
)


def test_a_running_process_has_not_ended() -> None:
    assert not identify(os.getpid()).has_ended()


def test_a_process_has_ended_when_another_one_has_its_number() -> None:
    assert replace(identify(os.getpid()), started="1").has_ended()


def test_a_killed_process_has_ended_even_before_it_is_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = identify(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identity.has_ended()
    child.communicate()


def test_a_process_of_another_machine_counts_as_running() -> None:
    assert not replace(identify(os.getpid()), machine="elsewhere", started="1").has_ended()


def test_without_torchrun_there_is_no_launcher() -> None:
    assert find_launcher({}) is None


@needs_proc
@pytest.mark.parametrize("wrapper", [[], ["bash", "-c", '"$@"; true', "wrapper"]], ids=["direct", "wrapped"])
def test_the_launcher_of_a_worker(wrapper: list[str]) -> None:
    """The process whose own environment lacks torchrun's variable."""
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none"}
    command = [*wrapper, sys.executable, "-c", _PRINT_LAUNCHER]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(result.stdout) == os.getpid()
