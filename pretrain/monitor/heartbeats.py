"""Heartbeats: the state that each rank publishes for the others, and the state of processes on this machine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Protocol

from pretrain.trace import SpanTimeout
from tape.runtime.process_identity import ProcessIdentity


class KeyValueStore(Protocol):
    """The part of torch.distributed.TCPStore that heartbeats use."""

    def set(self, key: str, value: str, /) -> None: ...

    def multi_get(self, keys: list[str], /) -> list[bytes]: ...


@dataclass(frozen=True)
class FailureReport:
    """One rank's finding why the run must end, and the ranks that caused it."""

    text: str
    culprits: tuple[int, ...] = ()


@dataclass(frozen=True)
class Heartbeat:
    """The state of one rank.

    Attributes:
        rank: the sender.
        count: grows with every heartbeat.
        span, timeout, communicating: see :class:`pretrain.trace.Position`.
        collectives: collectives started in each process group, by the group's name.
        sent, received: see :class:`pretrain.trace.Trace`, by the peer's number as text (for JSON).
        seconds: time since the main thread last made progress, that is, opened a span or started a collective.
        waiting: part of it without computation; all of it if that can't be determined.
        idle: part of it without activity that the span's timeout permits.
        place, in_collective: where the main thread is after some time without progress, and whether that is within a
            collective.
        failure: error with which the rank is about to exit; None if there is none.
        report: the reason for the end of the run that this rank has printed.
        machine, process, started: identify the process.
    """

    rank: int
    count: int = 0
    span: str = "start"
    timeout: SpanTimeout = SpanTimeout.COLLECTIVE
    communicating: bool = False
    collectives: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    waiting: float = 0.0
    idle: float = 0.0
    place: str = ""
    in_collective: bool = False
    failure: str | None = None
    report: FailureReport | None = None
    machine: str = ""
    process: int = 0
    started: str = ""


class HeartbeatStore:
    """The heartbeats of all ranks, in a key-value store.

    Args:
        rank, world_size: this process among all.
        store: see :func:`pretrain.parallel.heartbeat_store.open_heartbeat_store`.

    Raises:
        RuntimeError: on use, if the store doesn't answer (torch.distributed.DistError).
    """

    def __init__(self, rank: int, world_size: int, store: KeyValueStore) -> None:
        self._rank = rank
        self._keys = [f"heartbeat/{number}" for number in range(world_size)]
        self._store = store

    def write(self, heartbeat: Heartbeat) -> None:
        self._store.set(self._keys[self._rank], json.dumps(asdict(heartbeat)))

    def read(self) -> list[Heartbeat]:
        """The latest heartbeat of every rank."""
        return [parse_heartbeat(text) for text in self._store.multi_get(self._keys)]


def parse_heartbeat(text: str | bytes) -> Heartbeat:
    """Parse what :meth:`HeartbeatStore.write` has written."""
    fields = json.loads(text)
    if fields["report"] is not None:
        fields["report"] = FailureReport(fields["report"]["text"], tuple(fields["report"]["culprits"]))
    return Heartbeat(**fields | {"timeout": SpanTimeout(fields["timeout"])})


def has_ended(heartbeat: Heartbeat, machine: str) -> bool:
    """Whether a rank on this machine has exited; False if that can't be determined."""
    if heartbeat.machine != machine:
        return False
    return ProcessIdentity(heartbeat.machine, heartbeat.process, heartbeat.started).has_ended()


def kill_processes(heartbeats: Sequence[Heartbeat], machine: str) -> None:
    """Kill processes on this machine that can't exit by themselves."""
    for heartbeat in heartbeats:
        if heartbeat.machine == machine and heartbeat.process != os.getpid() and not has_ended(heartbeat, machine):
            with suppress(OSError):
                os.kill(heartbeat.process, signal.SIGKILL)
