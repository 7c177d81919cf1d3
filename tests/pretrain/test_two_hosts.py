"""torchrun over two hosts made of namespaces: what both of them print when something between them is wrong."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pretrain.checkpointing import find_checkpoint
from tests.support.two_hosts import Host, start_torchrun, two_hosts, wait_for_text, why_not

Flags = Callable[..., list[str]]

REASON = why_not()
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]
HANG_TIMEOUT = 5


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path / "logs") as pair:
        yield pair


@pytest.fixture
def script(repository_root: Path) -> Path:
    return repository_root / "pretrain" / "pretrain_tape.py"


def error_of(host: Host) -> str:
    """The one error that a host shows; torchrun's own report follows it."""
    assert host.end(90) == 1, host.text
    assert len(host.errors) == 1, host.text
    return host.errors[0]


def train_until_iteration_20(hosts: tuple[Host, Host], script: Path, flags: Flags, save: Path) -> None:
    save.mkdir()
    words = flags("--save", save, "--eval-iters", 0, "--log-interval", 10, train_iters=100_000)
    start_torchrun(hosts, script, [*words, "--hang-timeout-seconds", HANG_TIMEOUT], save)
    wait_for_text(hosts[0], "iteration 20/")


def test_disks_that_are_not_shared(hosts: tuple[Host, Host], script: Path, flags: Flags, tmp_path: Path) -> None:
    save, disks = tmp_path / "save", [tmp_path / "disk-a", tmp_path / "disk-b"]
    for folder in (save, *disks):
        folder.mkdir()
    start_torchrun(hosts, script, flags("--save", save), save, disks)
    problem = (
        f"--save {save}: rank 0 on host-a does not see the file that rank 1 on host-b has written there. "
        "--save must be on a file system that all hosts share"
    )
    assert error_of(hosts[0]) == f"error: {problem}"
    assert error_of(hosts[1]) == f"error: rank 1: {problem}"
    assert [list(disk.iterdir()) for disk in disks] == [[], []]


def test_a_link_that_is_cut_during_a_step(hosts: tuple[Host, Host], script: Path, flags: Flags, tmp_path: Path) -> None:
    train_until_iteration_20(hosts, script, flags, tmp_path / "save")
    hosts[1].cut_the_link()
    for host, lost, other in ((hosts[0], 1, "host-b"), (hosts[1], 0, "host-a")):
        pattern = (
            rf"error: rank {lost}: no heartbeat for \d+ s \(frozen, dead, or its machine {other} unreachable\); last"
        )
        assert re.match(pattern, error_of(host)), host.text


def test_a_host_that_stands_still(hosts: tuple[Host, Host], script: Path, flags: Flags, tmp_path: Path) -> None:
    """The other one gives it up; when it goes on, it ends, too."""
    train_until_iteration_20(hosts, script, flags, tmp_path / "save")
    hosts[1].signal_all(signal.SIGSTOP)
    error = error_of(hosts[0])
    assert re.match(r"error: rank 1: no heartbeat for \d+ s \(frozen, dead, or its machine host-b unreachable\)", error)
    hosts[1].signal_all(signal.SIGCONT)
    assert error_of(hosts[1]).startswith("error: rank 0")


def test_a_host_that_stands_still_for_less_than_the_timeout(
    hosts: tuple[Host, Host], script: Path, flags: Flags, tmp_path: Path
) -> None:
    save = tmp_path / "save"
    save.mkdir()
    words = flags("--save", save, "--eval-iters", 0, "--log-interval", 10, train_iters=60)
    start_torchrun(hosts, script, words, save)
    wait_for_text(hosts[0], "iteration 10/")
    hosts[1].signal_all(signal.SIGSTOP)
    time.sleep(3)
    hosts[1].signal_all(signal.SIGCONT)
    assert [host.end(90) for host in hosts] == [0, 0], hosts[0].text + hosts[1].text
    assert find_checkpoint(save) == save / "iter_0000060"
