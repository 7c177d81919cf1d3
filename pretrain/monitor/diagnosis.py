"""Diagnosis of a run from the heartbeats of all ranks: whether it must end, and which ranks caused it.

Which rank waits for which follows from the collectives that they have started in their process groups
(pretrain.parallel.collective_counts): of the members of a group, the one that has started more collectives waits for
those that have started fewer, unless it is computing. A rank that others wait for, and that does not itself wait for
another rank, blocks the run. It hangs if it has made no progress for the timeout, and a rank has waited for it for as
long. That includes a rank that computes: an endless loop and a slow computation look the same, so a rank that is slower
than the others by more than the timeout needs a longer one. Ranks that all compute for a long time do not wait for each
other, and none of them hangs.

Spans may have longer timeouts (pretrain.trace): in the first steps and while torch.compile works, a rank that computes,
reads or writes is slow but doesn't hang. Ranks that read or write checkpoints or records, or that are blocked in the
kernel on storage, are left to the timeout of collectives, because cluster file systems stall for minutes.

Two more situations are reported: ranks that wait for each other in a cycle, because they did different things; and
ranks that all wait within the same collective, because of the network. On NCCL the latter looks the same as a GPU that
computes, and is left to the timeout of collectives. There, a main thread runs ahead of its GPU, counts the collectives
it launches, and waits for the GPU elsewhere, so only the counts are compared, not the place. A hang of a GPU whose main
thread runs ahead as on all other ranks is detected by NCCL's own timeout and flight recorder, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.trace import SpanTimeout

from .heartbeats import Heartbeat, has_ended


@dataclass(frozen=True)
class RankStatus:
    """The last heartbeat of a rank, and the seconds since then."""

    heartbeat: Heartbeat
    age: float


@dataclass(frozen=True)
class Diagnosis:
    """The reason why the run must end.

    Attributes:
        text: one line for the user.
        culprits: the ranks that caused it; empty if unknown.
        failed: whether a rank has announced its own failure, and exits by itself.
        reported_on: machines on which a rank has already printed the reason.
    """

    text: str
    culprits: tuple[Heartbeat, ...]
    failed: bool = False
    reported_on: frozenset[str] = frozenset()

    @property
    def reported(self) -> bool:
        """Whether a rank has already printed the reason."""
        return bool(self.reported_on)


def diagnose(statuses: Sequence[RankStatus], own_rank: int, machine: str, timeout_seconds: float) -> Diagnosis | None:
    """Decide whether the run can continue.

    Args:
        statuses: the status of every rank, including this one, by rank.
        own_rank: this rank, whose heartbeat is never considered missing.
        machine: name of this machine, from this_machine().
        timeout_seconds: hang timeout; infinite disables it.
    """
    others, heartbeats = (
        [item for item in statuses if item.heartbeat.rank != own_rank],
        [item.heartbeat for item in statuses],
    )
    return (
        find_reported_failure(heartbeats)
        or diagnose_lost_ranks(others, machine, timeout_seconds)
        or diagnose_hangs(heartbeats, timeout_seconds)
    )


def find_reported_failure(heartbeats: Sequence[Heartbeat]) -> Diagnosis | None:
    """The reason that another rank has printed."""
    reporting = [heartbeat for heartbeat in heartbeats if heartbeat.report is not None]
    for heartbeat in reporting:
        if heartbeat.report is not None:
            culprits = tuple(other for other in heartbeats if other.rank in heartbeat.report.culprits)
            machines = frozenset(other.machine for other in reporting)
            return Diagnosis(heartbeat.report.text, culprits, reported_on=machines)
    return None


def diagnose_lost_ranks(others: Sequence[RankStatus], machine: str, timeout_seconds: float) -> Diagnosis | None:
    """Find another rank that has failed, exited, or sent no heartbeat, in this order."""
    for item in others:
        if item.heartbeat.failure is not None:
            text = f"rank {item.heartbeat.rank} failed at {item.heartbeat.span!r}: {item.heartbeat.failure}"
            return Diagnosis(text, (item.heartbeat,), failed=True)
    gone = tuple(item.heartbeat for item in others if has_ended(item.heartbeat, machine))
    if gone:
        return Diagnosis(f"{_names(gone)} exited without reporting an error (killed?); {_last_operations(gone)}", gone)
    missing = tuple(item.heartbeat for item in others if item.age > timeout_seconds)
    if not missing:
        return None
    seconds = max(item.age for item in others)
    what = f"no heartbeat for {seconds:.0f} s (frozen, dead, or {_machines_of(missing)} unreachable)"
    return Diagnosis(f"{_names(missing)}: {what}; {_last_operations(missing)}", missing)


def diagnose_hangs(heartbeats: Sequence[Heartbeat], timeout_seconds: float) -> Diagnosis | None:
    """Find ranks that others have been waiting for so long that they must hang."""
    if all(heartbeat.seconds <= timeout_seconds for heartbeat in heartbeats):
        return None
    waits = {
        heartbeat.rank: waited_for_by(heartbeat, heartbeats)
        for heartbeat in heartbeats
        if heartbeat.waiting > timeout_seconds
    }
    by_rank = {heartbeat.rank: heartbeat for heartbeat in heartbeats}
    first = {rank for others in waits.values() for rank in others if not waits.get(rank)}
    hanging = tuple(by_rank[rank] for rank in sorted(first) if is_hanging(by_rank[rank], timeout_seconds))
    if hanging:
        waiting = [by_rank[rank] for rank, others in sorted(waits.items()) if others]
        return Diagnosis(_hang_report(hanging, waiting), hanging)
    cycle = () if first else tuple(by_rank[rank] for rank in _wait_cycle(waits))
    if cycle and all(is_hanging(heartbeat, timeout_seconds) for heartbeat in cycle):
        return Diagnosis(f"{_names(cycle)} wait for each other: {'; '.join(map(_location, cycle))}", ())
    if not any(waits.values()) and all(is_stalled(heartbeat, timeout_seconds) for heartbeat in heartbeats):
        what = "no rank makes progress: all wait in the same collective, for an unknown rank (network failure?)"
        return Diagnosis(f"{what}: {_location(heartbeats[0])}", ())
    return None


def is_hanging(heartbeat: Heartbeat, timeout_seconds: float) -> bool:
    """Whether a rank has exceeded the timeout of its span, given that others wait for it."""
    return heartbeat.timeout is not SpanTimeout.COLLECTIVE and heartbeat.idle > timeout_seconds


def is_stalled(heartbeat: Heartbeat, timeout_seconds: float) -> bool:
    """Whether a rank has waited in a collective for longer than the timeout of its span."""
    return heartbeat.in_collective and heartbeat.waiting > timeout_seconds and is_hanging(heartbeat, timeout_seconds)


def waited_for_by(heartbeat: Heartbeat, heartbeats: Sequence[Heartbeat]) -> set[int]:
    """The ranks that a waiting rank must be waiting for."""
    return {other.rank for other in heartbeats if other.rank != heartbeat.rank and _waits_for(heartbeat, other)}


def _waits_for(heartbeat: Heartbeat, other: Heartbeat) -> bool:
    if any(number > other.collectives.get(name, number) for name, number in heartbeat.collectives.items()):
        return True
    here, there = str(heartbeat.rank), str(other.rank)
    if heartbeat.received.get(there, 0) > other.sent.get(here, 0):
        return True
    # on gloo, a send completes only when it is received, but only a rank between computations waits for that
    return heartbeat.communicating and heartbeat.sent.get(there, 0) > other.received.get(here, 0)


def _wait_cycle(waits: dict[int, set[int]]) -> list[int]:
    """Ranks that wait for each other in a cycle, in ascending order; empty if there is none."""
    path: list[int] = []
    rank = next((rank for rank, others in sorted(waits.items()) if others), None)
    while rank is not None and rank not in path:
        path.append(rank)
        rank = min(waits.get(rank, ()), default=None)
    return [] if rank is None else sorted(path[path.index(rank) :])


def _hang_report(hanging: Sequence[Heartbeat], waiting: Sequence[Heartbeat]) -> str:
    seconds = max(heartbeat.seconds for heartbeat in hanging)
    operations = _quoted({heartbeat.span for heartbeat in waiting})
    verb, wait = ("hangs", "hang")[len(hanging) > 1], ("waits", "wait")[len(waiting) > 1]
    what = f"at {_quoted({heartbeat.span for heartbeat in hanging})} for {seconds:.0f} s{_frame(hanging[0])}"
    return f"{_names(hanging)} {verb}: {what}, while {_names(waiting)} {wait} at {operations}"


def _location(heartbeat: Heartbeat) -> str:
    return f"rank {heartbeat.rank} at {heartbeat.span!r} for {heartbeat.seconds:.0f} s{_frame(heartbeat)}"


def _frame(heartbeat: Heartbeat) -> str:
    return f" in {heartbeat.place}" if heartbeat.place else ""


def _names(heartbeats: Sequence[Heartbeat]) -> str:
    numbers = [str(heartbeat.rank) for heartbeat in heartbeats]
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    if len(numbers) > 8:
        return f"ranks {', '.join(numbers[:8])} and {len(numbers) - 8} more"
    return f"ranks {', '.join(numbers[:-1])} and {numbers[-1]}"


def _machines_of(heartbeats: Sequence[Heartbeat]) -> str:
    hosts = sorted({heartbeat.machine.partition(" ")[0] for heartbeat in heartbeats})
    names = ", ".join(hosts[:4]) + (" ..." if len(hosts) > 4 else "")
    return f"{'its machine' if len(heartbeats) == 1 else 'their machines'} {names}".rstrip()


def _last_operations(heartbeats: Sequence[Heartbeat]) -> str:
    different = {heartbeat.span for heartbeat in heartbeats}
    return f"last operation{'s' if len(different) > 1 else ''}: {_quoted(different)}"


def _quoted(operations: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(operations)[:4])
