"""Signs of life: what each rank tells the others about itself, and what its machine says about it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from pretrain.trace import Allowance

_CONNECT_TIMEOUT = timedelta(minutes=2)


@dataclass(frozen=True)
class FailureReport:
    """Why one rank has found that the run must end, and which ranks are to blame."""

    text: str
    culprits: tuple[int, ...] = ()


@dataclass(frozen=True)
class Heartbeat:
    """What one rank last said.

    Attributes:
        rank: whose it is.
        count: grows with every beat.
        operation, allowance, exchanging: of pretrain.trace.Operation.
        marks: how far the rank has come in each group of ranks that it is in, by the group's name.
        sent, wanted: of pretrain.trace.Operations, by the other rank's number as text (for JSON).
        seconds: since its main thread last got on: began an operation or an exchange.
        waiting: seconds for which it has neither got on nor computed; all of them where that can't be known.
        quiet: seconds of these for which it has done nothing that it is given time for.
        place, inside: where the main thread is once it hasn't got on for a while, and whether it waits in an exchange.
        failure: why it is about to end, None while it isn't.
        ending: what it has said to the user as the reason why all must end.
        machine, process, started: where to find it in a process table.
    """

    rank: int
    count: int = 0
    operation: str = "start"
    allowance: Allowance = Allowance.ANY
    exchanging: bool = False
    marks: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    waiting: float = 0.0
    quiet: float = 0.0
    place: str = ""
    inside: bool = False
    failure: str | None = None
    ending: FailureReport | None = None
    machine: str = ""
    process: int = 0
    started: str = ""


class HeartbeatStore:
    """Where the ranks write their beats: a TCPStore in rank 0's process, on connections of its own.

    Args:
        rank, world_size: this process among all.
        host, port: where the store listens; port 0: start it here.
        timeout: of one message; finding the store may take longer, when thousands look for it at once.

    Raises:
        torch.distributed.DistError: on use, when the store doesn't answer.
    """

    def __init__(self, rank: int, world_size: int, host: str, port: int, timeout: timedelta) -> None:
        self._rank = rank
        self._keys = [f"beat/{number}" for number in range(world_size)]
        self._store = dist.TCPStore(host, port, is_master=port == 0, wait_for_workers=False, timeout=_CONNECT_TIMEOUT)
        self._store.set_timeout(timeout)

    @property
    def port(self) -> int:
        return self._store.port

    def write(self, beat: Heartbeat) -> None:
        self._store.set(self._keys[self._rank], json.dumps(asdict(beat)))

    def read(self) -> list[Heartbeat]:
        """What every rank last wrote."""
        return [parse_heartbeat(text) for text in self._store.multi_get(self._keys)]


def parse_heartbeat(text: str | bytes) -> Heartbeat:
    """What :meth:`HeartbeatStore.write` wrote."""
    fields = json.loads(text)
    if fields["ending"] is not None:
        fields["ending"] = FailureReport(fields["ending"]["text"], tuple(fields["ending"]["culprits"]))
    return Heartbeat(**fields | {"allowance": Allowance(fields["allowance"])})


def this_machine() -> str:
    """A name for the process table that this process is in: machines, and containers on one, differ."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace}"


def start_of(process: int) -> str | None:
    """When a process of this machine started, in the kernel's own unit; None when it is gone or only a zombie.

    Raises:
        OSError: there is no /proc to look into.
    """
    if not Path("/proc/self/stat").exists():
        raise OSError("no /proc")
    try:
        # the name in parentheses may hold anything; state is the first field after it, the start the 20th
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def has_ended(beat: Heartbeat, machine: str) -> bool:
    """Whether a rank of this machine is gone; False where this can't be known."""
    if beat.machine != machine:
        return False
    try:
        return start_of(beat.process) != beat.started
    except OSError:
        return False


def kill_all(beats: Sequence[Heartbeat], machine: str) -> None:
    """End processes of this machine that can't end themselves any more."""
    for beat in beats:
        if beat.machine == machine and beat.process != os.getpid() and not has_ended(beat, machine):
            with suppress(OSError):
                os.kill(beat.process, signal.SIGKILL)
