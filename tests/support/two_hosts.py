"""Two hosts made of namespaces of this machine: each has its own network, name, processes and, if wanted, disk.

A veth pair connects them. Needs root and iproute2; see :func:`why_not`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ranks import wait_for

NAMES = ("host-a", "host-b")
ADDRESSES = ("10.213.77.1", "10.213.77.2")
_PORT = 29500  # nothing else listens in the namespaces
# Names the host, binds its own disk over the shared path, and runs the command as process 1 of the host.
_BOOT = 'hostname "$1"; if [ -n "$2" ]; then mount --bind "$2" "$3"; fi; shift 3; exec "$@"'


def why_not() -> str | None:
    """The reason why two hosts can't be made here; None if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    missing = [name for name in ("ip", "unshare", "nsenter", "mount", "hostname") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (iproute2, util-linux)"
    probe = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "ip", "link", "add", "type", "veth"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "network namespaces are not permitted here"
    return None


@dataclass
class Host:
    """One of the two hosts.

    Attributes:
        number: 0 or 1; rank 0 is on host 0.
        namespace: name of its network namespace.
        log: what its command writes.
    """

    number: int
    namespace: str
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return NAMES[self.number]

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    @property
    def errors(self) -> list[str]:
        """The lines that a command prints for its user's errors."""
        return [line for line in self.text.splitlines() if line.startswith("error: ")]

    def start(self, command: Sequence[object], disk: Path | None, path: Path, environment: dict[str, str]) -> None:
        """Start a command.

        Args:
            command: its words.
            disk: the host's own directory at `path`; None: the one that both see there.
            path: a directory.
            environment: further variables.
        """
        boot = ["sh", "-c", _BOOT, "sh", self.name, str(disk or ""), str(path)]
        spaces = ["unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        words = ["ip", "netns", "exec", self.namespace, *spaces, *boot, *map(str, command)]
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(words, stdout=stream, stderr=stream, env=os.environ | environment)

    def end(self, seconds: float) -> int:
        """Wait for the command; its exit status."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} is still running after {seconds} s:\n{self.text}") from None

    def cut_the_link(self) -> None:
        """Take down the interface: neither host gets anything of the other any more."""
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "plm", "down"], check=True)

    def signal_all(self, number: signal.Signals) -> None:
        """Signal all processes of the host."""
        for process in self._processes():
            os.kill(process, number)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal_all(signal.SIGCONT)
            self.process.kill()  # unshare --kill-child ends the others
            self.process.wait()

    def _processes(self) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        return [int(word) for word in found.stdout.split()]


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Two connected hosts; removed at the end, with all their processes.

    Args:
        folder: of their logs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    namespaces = [f"plm-{os.getpid()}-{name}" for name in NAMES]
    hosts = tuple(Host(i, namespace, folder / NAMES[i]) for i, namespace in enumerate(namespaces))
    with ExitStack() as stack:
        for namespace in namespaces:
            _run("ip", "netns", "add", namespace)
            stack.callback(_run, "ip", "netns", "delete", namespace)
        _run("ip", "-n", namespaces[0], "link", "add", "plm", "type", "veth", "peer", "plm", "netns", namespaces[1])
        for namespace, address in zip(namespaces, ADDRESSES, strict=True):
            _run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "plm")
            for device in ("lo", "plm"):
                _run("ip", "-n", namespace, "link", "set", device, "up")
        for host in hosts:
            stack.callback(host.kill)
        yield hosts[0], hosts[1]


def start_torchrun(
    hosts: tuple[Host, Host], script: Path, flags: Sequence[object], path: Path, disks: Sequence[Path] | None = None
) -> None:
    """Run a script with one rank per host, as a user would with two machines.

    Args:
        hosts: see :func:`two_hosts`.
        script: the script.
        flags: its command line.
        path: a directory that the hosts share, or that is the mount point of the disk of each.
        disks: those disks.
    """
    for host in hosts:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1]
        launcher += ["--node-rank", host.number, "--master-addr", ADDRESSES[0], "--master-port", _PORT]
        environment = {"GLOO_SOCKET_IFNAME": "plm", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        host.start([*launcher, script, *flags], disks[host.number] if disks else None, path, environment)


def wait_for_text(host: Host, text: str, seconds: float = 120.0) -> None:
    """Wait until the host's command has written something."""
    wait_for(lambda: text in host.text or (host.process is not None and host.process.poll() is not None), text, seconds)
    assert text in host.text, host.text


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
