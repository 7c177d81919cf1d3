"""Diagnosis of hangs and failures from the heartbeats of all ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pretrain.monitor.diagnosis import (
    Diagnosis,
    RankStatus,
    diagnose,
    diagnose_hangs,
    diagnose_lost_ranks,
    find_reported_failure,
)
from pretrain.monitor.heartbeats import FailureReport, Heartbeat
from pretrain.trace import SpanTimeout

TIMEOUT = 30.0
STILL = 40.0


def heartbeat(rank: int, seconds: float = STILL, **options: Any) -> Heartbeat:
    options = {"span": f"work {rank}", "waiting": seconds, "idle": seconds, **options}
    options = {"timeout": SpanTimeout.HANG, **options}
    return Heartbeat(rank, 1, seconds=seconds, **options)


def text(*heartbeats: Heartbeat) -> str | None:
    found = diagnose_hangs(heartbeats, TIMEOUT)
    return None if found is None else found.text


def culprits(*heartbeats: Heartbeat) -> list[int] | None:
    found = diagnose_hangs(heartbeats, TIMEOUT)
    return None if found is None else [item.rank for item in found.culprits]


def pair(first: int = 6, second: int = 5) -> tuple[Heartbeat, Heartbeat]:
    """Rank 0 has started its collective number ``first``, rank 1 number ``second``."""
    return heartbeat(0, collectives={"tensor of 0": first}), heartbeat(
        1, collectives={"tensor of 0": second}, place="spin (a.py:7)"
    )


def test_the_rank_that_has_started_fewer_collectives_hangs() -> None:
    assert text(*pair()) == "rank 1 hangs: at 'work 1' for 40 s in spin (a.py:7), while rank 0 waits at 'work 0'"
    assert culprits(*pair(5, 6)) == [0]


def test_messages_name_several_ranks() -> None:
    collectives = ({"world": 6}, {"world": 5}, {"world": 5}, {"world": 6})
    reported = text(*(heartbeat(rank, collectives=mark, span="sum") for rank, mark in enumerate(collectives)))
    assert reported == "ranks 1 and 2 hang: at 'sum' for 40 s, while ranks 0 and 3 wait at 'sum'"
    reported = text(*(heartbeat(rank, collectives={"world": int(rank > 2)}) for rank in range(4)))
    assert reported == "ranks 0, 1 and 2 hang: at 'work 0', 'work 1', 'work 2' for 40 s, while rank 3 waits at 'work 3'"


def test_computing_ranks_do_not_hang() -> None:
    still, behind = pair()
    # all wait for a slow disk, or compute for a long time: none has started more collectives than another
    assert text(*pair(5, 5)) is None
    # one is late, but by less than the timeout; or the other has waited for less than the timeout
    assert text(still, replace(behind, seconds=29.0, idle=29.0)) is None
    assert text(replace(still, waiting=29.0), behind) is None
    # the one ahead has started an asynchronous all-reduce and computes
    assert text(replace(still, waiting=0.0), behind) is None
    assert diagnose_hangs(pair(), float("inf")) is None


def test_a_rank_slower_than_the_others_by_more_than_the_timeout_hangs() -> None:
    """It computes, which cannot be distinguished from an endless loop."""
    still, behind = pair()
    assert culprits(still, replace(behind, waiting=0.0)) == [1]


def test_the_timeout_of_a_span_determines_when_it_hangs() -> None:
    still, behind = pair()
    # rank 0 writes a file, for example, while the others wait at a barrier
    assert text(still, replace(behind, timeout=SpanTimeout.COLLECTIVE, idle=500.0)) is None
    first_step = replace(behind, timeout=SpanTimeout.BUSY)
    assert text(still, replace(first_step, idle=0.5)) is None  # compiles
    assert culprits(still, replace(first_step, idle=35.0)) == [1]
    # it has recompiled, or waited for storage, until just now
    assert text(still, replace(behind, idle=0.5)) is None
    # the timeout of the waiting rank's span doesn't matter
    assert culprits(replace(still, timeout=SpanTimeout.COLLECTIVE), behind) == [1]


def test_the_end_of_a_chain_of_waits_is_the_culprit() -> None:
    """Two replicas of two tensor-parallel ranks: 3 hangs, 2 waits for it, 0 for 2, and 1 for 3."""
    ranks = (
        heartbeat(0, collectives={"tensor of 0": 8, "data of 0": 4}),
        heartbeat(1, collectives={"tensor of 0": 8, "data of 1": 4}),
        heartbeat(2, collectives={"tensor of 2": 7, "data of 0": 3}),
        heartbeat(3, collectives={"tensor of 2": 6, "data of 1": 3}),
    )
    assert culprits(*ranks) == [3]
    assert culprits(*(replace(item, seconds=20.0, idle=20.0) if item.rank == 3 else item for item in ranks)) is None


def test_groups_that_ranks_do_not_share_are_not_compared() -> None:
    assert culprits(heartbeat(0, collectives={"tensor of 0": 8}), heartbeat(1, collectives={"tensor of 1": 3})) is None


def test_a_stage_that_does_not_send_hangs() -> None:
    phase = {"pipeline of 0": 9}
    hung = heartbeat(0, collectives=phase, sent={"1": 4}, received={"1": 4}, span="forward pass")
    waiting = heartbeat(1, collectives=phase, sent={"0": 4}, received={"0": 5}, span="input", communicating=True)
    assert culprits(hung, waiting) == [0]
    # with a GPU, the main thread of the waiting rank may be anywhere
    assert culprits(hung, replace(waiting, communicating=False)) == [0]


def test_a_stage_that_does_not_receive_hangs() -> None:
    collectives = {"pipeline of 0": 9}
    sender = heartbeat(0, collectives=collectives, sent={"1": 5}, communicating=True)
    receiver = heartbeat(1, collectives=collectives, received={"0": 4})
    assert culprits(sender, receiver) == [1]
    assert (
        culprits(replace(sender, communicating=False), receiver) is None
    )  # the send is asynchronous, and the sender computes


def test_a_middle_stage_is_found_from_both_sides() -> None:
    collectives = {"pipeline of 0": 9}
    first = heartbeat(0, collectives=collectives, sent={"1": 3}, received={"1": 2}, communicating=True)
    middle = heartbeat(1, collectives=collectives, sent={"0": 1, "2": 2}, received={"0": 3, "2": 1})
    last = heartbeat(2, collectives=collectives, sent={"1": 2}, received={"1": 3}, communicating=True)
    assert culprits(first, middle, last) == [1]


def test_a_cycle_of_waits_is_reported() -> None:
    ranks = (
        heartbeat(0, collectives={"world": 3, "tensor of 0": 5}),
        heartbeat(1, collectives={"world": 2, "tensor of 0": 6}, place="all_reduce (b.py:1)"),
        heartbeat(2, collectives={"world": 3}),
    )
    reported = "ranks 0 and 1 wait for each other: rank 0 at 'work 0' for 40 s; rank 1 at 'work 1' for 40 s in "
    assert diagnose_hangs(ranks, TIMEOUT) == Diagnosis(f"{reported}all_reduce (b.py:1)", ())


def test_all_ranks_in_one_collective_are_reported() -> None:
    ranks = [replace(item, in_collective=True, place="wait (c.py:2)") for item in pair(5, 5)]
    found = diagnose_hangs(ranks, TIMEOUT)
    assert found is not None
    assert found.culprits == ()
    assert "all wait in the same collective" in found.text
    assert "rank 0 at 'work 0' for 40 s in wait (c.py:2)" in found.text
    # one of them computes, isn't in the collective, or has the longer timeout of collectives
    for change in ({"waiting": 0.0}, {"in_collective": False}, {"timeout": SpanTimeout.COLLECTIVE}):
        assert diagnose_hangs([ranks[0], replace(ranks[1], **change)], TIMEOUT) is None  # type: ignore[arg-type]


def diagnosis(*items: RankStatus, rank: int = 0) -> str | None:
    found = diagnose(items, rank, "here", TIMEOUT)
    return None if found is None else found.text


def test_missing_heartbeats_of_others_are_reported() -> None:
    items = [RankStatus(heartbeat(0, 1.0), 0.0), RankStatus(heartbeat(1, 1.0), 31.0)]
    assert diagnosis(*items) == (
        "rank 1: no heartbeat for 31 s (frozen, dead, or its machine unreachable); last operation: 'work 1'"
    )
    assert diagnosis(*items, rank=1) is None


def test_missing_heartbeats_of_several_ranks() -> None:
    reported = diagnosis(
        RankStatus(heartbeat(0), 0.0), RankStatus(heartbeat(1, span="update"), 31.0), RankStatus(heartbeat(2), 32.0)
    )
    assert reported == (
        "ranks 1 and 2: no heartbeat for 32 s (frozen, dead, or their machines unreachable); "
        "last operations: 'update', 'work 2'"
    )


def test_a_failure_comes_first() -> None:
    items = [
        RankStatus(heartbeat(0, 1.0), 0.0),
        RankStatus(heartbeat(2, failure="no room"), 0.0),
        RankStatus(heartbeat(1), 31.0),
    ]
    assert diagnosis(*items) == "rank 2 failed at 'work 2': no room"


def test_a_report_of_another_rank_comes_first() -> None:
    """The reporting rank may have ended since, after killing the culprit."""
    reporter = heartbeat(1, report=FailureReport("rank 2 hangs", (2,)))
    items = [
        RankStatus(heartbeat(0), 0.0),
        RankStatus(reporter, 31.0),
        RankStatus(heartbeat(2, failure="no room"), 31.0),
    ]
    found = diagnose(items, 0, "here", TIMEOUT)
    assert found is not None
    assert (found.text, [item.rank for item in found.culprits], found.reported) == ("rank 2 hangs", [2], True)


def test_the_host_of_a_silent_rank_is_named() -> None:
    lost = RankStatus(replace(heartbeat(1), machine="node7 pid:[1]"), 50.0)
    found = diagnose_lost_ranks([lost], "node6 pid:[1]", TIMEOUT)
    assert found is not None
    assert "(frozen, dead, or its machine node7 unreachable)" in found.text


def test_the_machines_on_which_the_reason_was_printed() -> None:
    report = FailureReport("rank 2 hangs", (2,))
    ranks = [replace(heartbeat(rank), machine=f"node{rank}", report=report if rank < 2 else None) for rank in range(3)]
    found = find_reported_failure(ranks)
    assert found is not None
    assert found.reported_on == {"node0", "node1"}
    assert [item.rank for item in found.culprits] == [2]
