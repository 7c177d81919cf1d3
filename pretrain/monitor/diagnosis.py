"""Whether a run can go on, and if not, which ranks are to blame: reasoning about what all ranks last said.

Who waits for whom is read off the marks that ranks leave in their groups (:mod:`.progress`): of the members of a group
the one that has begun more exchanges waits for those that have begun fewer, unless it computes meanwhile. A rank that
others wait for, while it waits for nobody, is the one that the run stands still for. It hangs when it has not begun an
operation or an exchange for the patience given, and a rank has waited for it for as long. That holds for a rank that
computes as well: an endless loop and a slow computation look alike, and one that is slower than the others by more
than the patience needs a longer patience. Ranks that all compute for long, however long, wait for nobody.

Time is given (pretrain.trace) in the first steps and while torch.compile is at work: a rank that still computes,
reads or writes is slow then and doesn't hang. One that reads or writes checkpoints or records, and at any time one that
stands in the kernel for storage, is left to the timeout of exchanges: file systems of clusters pause for minutes.

Two more things may be seen, and are said as they are: ranks that wait for each other in a circle (they did different
things), and ranks that all wait within the same exchange (the network between them). On NCCL the second can't be told
from a GPU that computes, and is left to the timeout of exchanges. There a main thread runs ahead of its GPU, counts
what it hands to the GPU, and then waits for the GPU somewhere else; where it stands doesn't matter, the counts do. A
GPU that hangs while its main thread runs ahead like all others' is not found here. (What was tried is gloo.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.trace import Allowance

from .heartbeats import Heartbeat, has_ended


@dataclass(frozen=True)
class RankStatus:
    """What was last heard of a rank, and how long ago."""

    beat: Heartbeat
    silence: float


@dataclass(frozen=True)
class Diagnosis:
    """Why the run must end.

    Attributes:
        text: one line.
        culprits: the ranks that are to blame; none when that can't be said.
        failed: whether a rank said itself that it fails (it needs no killing).
        said: whether another rank has told the user.
    """

    text: str
    culprits: tuple[Heartbeat, ...]
    failed: bool = False
    said: bool = False


def diagnose(heard: Sequence[RankStatus], own_rank: int, machine: str, patience: float) -> Diagnosis | None:
    """Whether the run can go on.

    Args:
        heard: of every rank, this one included, by rank.
        own_rank: whose silence means nothing.
        machine: this one's name, of this_machine().
        patience: seconds; infinite for any.
    """
    others, beats = [item for item in heard if item.beat.rank != own_rank], [item.beat for item in heard]
    return (
        find_reported_failure(beats)
        or diagnose_lost_ranks(others, machine, patience)
        or diagnose_hangs(beats, patience)
    )


def find_reported_failure(beats: Sequence[Heartbeat]) -> Diagnosis | None:
    """What another rank has found, and said."""
    for beat in beats:
        if beat.ending is not None:
            culprits = tuple(other for other in beats if other.rank in beat.ending.culprits)
            return Diagnosis(beat.ending.text, culprits, said=True)
    return None


def diagnose_lost_ranks(others: Sequence[RankStatus], machine: str, patience: float) -> Diagnosis | None:
    """Whether another rank has failed, is gone, or is silent; in this order."""
    for item in others:
        if item.beat.failure is not None:
            text = f"rank {item.beat.rank} failed at {item.beat.operation!r}: {item.beat.failure}"
            return Diagnosis(text, (item.beat,), failed=True)
    gone = tuple(item.beat for item in others if has_ended(item.beat, machine))
    if gone:
        return Diagnosis(f"{_names(gone)} ended without a word (killed?); {_last_operations(gone)}", gone)
    silent = tuple(item.beat for item in others if item.silence > patience)
    if not silent:
        return None
    seconds = max(item.silence for item in others)
    what = f"not heard of for {seconds:.0f} s (frozen, dead, or {_its(silent)} cannot be reached)"
    return Diagnosis(f"{_names(silent)}: {what}; {_last_operations(silent)}", silent)


def diagnose_hangs(beats: Sequence[Heartbeat], patience: float) -> Diagnosis | None:
    """Find the ranks that the others wait for, and have waited for for so long that they must hang."""
    if all(beat.seconds <= patience for beat in beats):
        return None
    waits = {beat.rank: awaited_by(beat, beats) for beat in beats if beat.waiting > patience}
    by_rank = {beat.rank: beat for beat in beats}
    first = {rank for others in waits.values() for rank in others if not waits.get(rank)}
    hanging = tuple(by_rank[rank] for rank in sorted(first) if hangs(by_rank[rank], patience))
    if hanging:
        waiting = [by_rank[rank] for rank, others in sorted(waits.items()) if others]
        return Diagnosis(_hang_report(hanging, waiting), hanging)
    circle = () if first else tuple(by_rank[rank] for rank in _circle(waits))
    if circle and all(hangs(beat, patience) for beat in circle):
        return Diagnosis(f"{_names(circle)} wait for each other: {'; '.join(map(_stand, circle))}", ())
    if not any(waits.values()) and all(stalls(beat, patience) for beat in beats):
        what = "no rank gets on: all wait inside the same exchange, and it cannot be told for whom (the network?)"
        return Diagnosis(f"{what}: {_stand(beats[0])}", ())
    return None


def hangs(beat: Heartbeat, patience: float) -> bool:
    """Whether a rank has been at the same for longer than it may, given that others wait for it."""
    return beat.allowance is not Allowance.ANY and beat.quiet > patience


def stalls(beat: Heartbeat, patience: float) -> bool:
    """Whether a rank has waited in an exchange for longer than it may."""
    return beat.inside and beat.waiting > patience and hangs(beat, patience)


def awaited_by(beat: Heartbeat, beats: Sequence[Heartbeat]) -> set[int]:
    """The ranks that a rank must be waiting for, given that it waits."""
    return {other.rank for other in beats if other.rank != beat.rank and _is_ahead(beat, other)}


def _is_ahead(beat: Heartbeat, other: Heartbeat) -> bool:
    if any(number > other.marks.get(name, number) for name, number in beat.marks.items()):
        return True
    here, there = str(beat.rank), str(other.rank)
    if beat.wanted.get(there, 0) > other.sent.get(here, 0):
        return True
    # what is sent must be taken (gloo), but only who stands still between computations is waiting for that
    return beat.exchanging and beat.sent.get(there, 0) > other.wanted.get(here, 0)


def _circle(waits: dict[int, set[int]]) -> list[int]:
    """Ranks that wait for each other in a circle, by rank; none if there is none."""
    path: list[int] = []
    rank = next((rank for rank, others in sorted(waits.items()) if others), None)
    while rank is not None and rank not in path:
        path.append(rank)
        rank = min(waits.get(rank, ()), default=None)
    return [] if rank is None else sorted(path[path.index(rank) :])


def _hang_report(hanging: Sequence[Heartbeat], waiting: Sequence[Heartbeat]) -> str:
    seconds = max(beat.seconds for beat in hanging)
    operations = _quoted({beat.operation for beat in waiting})
    verb, wait = ("hangs", "hang")[len(hanging) > 1], ("waits", "wait")[len(waiting) > 1]
    what = f"at {_quoted({beat.operation for beat in hanging})} for {seconds:.0f} s{_in(hanging[0])}"
    return f"{_names(hanging)} {verb}: {what}, while {_names(waiting)} {wait} at {operations}"


def _stand(beat: Heartbeat) -> str:
    return f"rank {beat.rank} at {beat.operation!r} for {beat.seconds:.0f} s{_in(beat)}"


def _in(beat: Heartbeat) -> str:
    return f" in {beat.place}" if beat.place else ""


def _names(beats: Sequence[Heartbeat]) -> str:
    numbers = [str(beat.rank) for beat in beats]
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    if len(numbers) > 8:
        return f"ranks {', '.join(numbers[:8])} and {len(numbers) - 8} more"
    return f"ranks {', '.join(numbers[:-1])} and {numbers[-1]}"


def _its(beats: Sequence[Heartbeat]) -> str:
    return "its machine" if len(beats) == 1 else "their machines"


def _last_operations(beats: Sequence[Heartbeat]) -> str:
    different = {beat.operation for beat in beats}
    return f"last operation{'s' if len(different) > 1 else ''}: {_quoted(different)}"


def _quoted(operations: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(operations)[:4])
