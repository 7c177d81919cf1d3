"""Who is to blame when a run stands still, from what ranks say about themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pretrain.monitor.diagnosis import Diagnosis, RankStatus, diagnose, diagnose_hangs
from pretrain.monitor.heartbeats import FailureReport, Heartbeat
from pretrain.trace import Allowance

PATIENCE = 30.0
STILL = 40.0


def beat(rank: int, seconds: float = STILL, **options: Any) -> Heartbeat:
    options = {"operation": f"work {rank}", "waiting": seconds, "quiet": seconds, **options}
    options = {"allowance": Allowance.NONE, **options}
    return Heartbeat(rank, 1, seconds=seconds, **options)


def text(*beats: Heartbeat) -> str | None:
    found = diagnose_hangs(beats, PATIENCE)
    return None if found is None else found.text


def culprits(*beats: Heartbeat) -> list[int] | None:
    found = diagnose_hangs(beats, PATIENCE)
    return None if found is None else [item.rank for item in found.culprits]


def pair(first: int = 6, second: int = 5) -> tuple[Heartbeat, Heartbeat]:
    """Rank 0 has begun its exchange number ``first``, rank 1 number ``second``."""
    return beat(0, marks={"tensor of 0": first}), beat(1, marks={"tensor of 0": second}, place="spin (a.py:7)")


def test_the_rank_that_has_begun_fewer_exchanges_hangs() -> None:
    assert text(*pair()) == "rank 1 hangs: at 'work 1' for 40 s in spin (a.py:7), while rank 0 waits at 'work 0'"
    assert culprits(*pair(5, 6)) == [0]


def test_grammar_of_several() -> None:
    marks = ({"world": 6}, {"world": 5}, {"world": 5}, {"world": 6})
    said = text(*(beat(rank, marks=mark, operation="sum") for rank, mark in enumerate(marks)))
    assert said == "ranks 1 and 2 hang: at 'sum' for 40 s, while ranks 0 and 3 wait at 'sum'"
    said = text(*(beat(rank, marks={"world": int(rank > 2)}) for rank in range(4)))
    assert said == "ranks 0, 1 and 2 hang: at 'work 0', 'work 1', 'work 2' for 40 s, while rank 3 waits at 'work 3'"


def test_ranks_at_work_are_left_alone() -> None:
    still, behind = pair()
    # all wait for a slow disk, or compute, for however long: nobody has begun more than another
    assert text(*pair(5, 5)) is None
    # one is late, but not for as long as that; or the other has only just begun to wait
    assert text(still, replace(behind, seconds=29.0, quiet=29.0)) is None
    assert text(replace(still, waiting=29.0), behind) is None
    # the one ahead has begun a sum beside its computation, and computes
    assert text(replace(still, waiting=0.0), behind) is None
    assert diagnose_hangs(pair(), float("inf")) is None


def test_a_rank_far_slower_than_the_others_is_given_up() -> None:
    """It computes, but nobody can tell that from an endless loop."""
    still, behind = pair()
    assert culprits(still, replace(behind, waiting=0.0)) == [1]


def test_allowances() -> None:
    still, behind = pair()
    # rank 0 writes, or assembles something, while the others wait at a barrier
    assert text(still, replace(behind, allowance=Allowance.ANY, quiet=500.0)) is None
    first_step = replace(behind, allowance=Allowance.WORKING)
    assert text(still, replace(first_step, quiet=0.5)) is None  # compiles
    assert culprits(still, replace(first_step, quiet=35.0)) == [1]
    # one that compiled again, or waited for storage, until just now
    assert text(still, replace(behind, quiet=0.5)) is None
    # what the waiting one may take doesn't matter
    assert culprits(replace(still, allowance=Allowance.ANY), behind) == [1]


def test_the_end_of_a_chain_is_blamed() -> None:
    """Two copies of two tensor ranks: 3 hangs; 2 waits for it, 0 for 2, and 1 for 3."""
    ranks = (
        beat(0, marks={"tensor of 0": 8, "data of 0": 4}),
        beat(1, marks={"tensor of 0": 8, "data of 1": 4}),
        beat(2, marks={"tensor of 2": 7, "data of 0": 3}),
        beat(3, marks={"tensor of 2": 6, "data of 1": 3}),
    )
    assert culprits(*ranks) == [3]
    assert culprits(*(replace(item, seconds=20.0, quiet=20.0) if item.rank == 3 else item for item in ranks)) is None


def test_groups_that_ranks_do_not_share_say_nothing() -> None:
    assert culprits(beat(0, marks={"tensor of 0": 8}), beat(1, marks={"tensor of 1": 3})) is None


def test_stages_wait_for_what_was_never_sent() -> None:
    phase = {"pipeline of 0": 9}
    hung = beat(0, marks=phase, sent={"1": 4}, wanted={"1": 4}, operation="forward pass")
    waiting = beat(1, marks=phase, sent={"0": 4}, wanted={"0": 5}, operation="input", exchanging=True)
    assert culprits(hung, waiting) == [0]
    # beside a GPU the one that waits stands anywhere
    assert culprits(hung, replace(waiting, exchanging=False)) == [0]


def test_stages_wait_for_what_is_not_taken() -> None:
    marks = {"pipeline of 0": 9}
    sender = beat(0, marks=marks, sent={"1": 5}, exchanging=True)
    receiver = beat(1, marks=marks, wanted={"0": 4})
    assert culprits(sender, receiver) == [1]
    assert culprits(replace(sender, exchanging=False), receiver) is None  # it computes; the message waits for itself


def test_a_middle_stage_is_found_from_both_sides() -> None:
    marks = {"pipeline of 0": 9}
    first = beat(0, marks=marks, sent={"1": 3}, wanted={"1": 2}, exchanging=True)
    middle = beat(1, marks=marks, sent={"0": 1, "2": 2}, wanted={"0": 3, "2": 1})
    last = beat(2, marks=marks, sent={"1": 2}, wanted={"1": 3}, exchanging=True)
    assert culprits(first, middle, last) == [1]


def test_a_circle_is_said_as_such() -> None:
    ranks = (
        beat(0, marks={"world": 3, "tensor of 0": 5}),
        beat(1, marks={"world": 2, "tensor of 0": 6}, place="all_reduce (b.py:1)"),
        beat(2, marks={"world": 3}),
    )
    said = "ranks 0 and 1 wait for each other: rank 0 at 'work 0' for 40 s; rank 1 at 'work 1' for 40 s in "
    assert diagnose_hangs(ranks, PATIENCE) == Diagnosis(f"{said}all_reduce (b.py:1)", ())


def test_all_in_one_exchange_is_said_as_such() -> None:
    ranks = [replace(item, inside=True, place="wait (c.py:2)") for item in pair(5, 5)]
    found = diagnose_hangs(ranks, PATIENCE)
    assert found is not None
    assert found.culprits == ()
    assert "all wait inside the same exchange" in found.text
    assert "rank 0 at 'work 0' for 40 s in wait (c.py:2)" in found.text
    # one of them computes, isn't in the exchange, or is allowed to
    for change in ({"waiting": 0.0}, {"inside": False}, {"allowance": Allowance.ANY}):
        assert diagnose_hangs([ranks[0], replace(ranks[1], **change)], PATIENCE) is None  # type: ignore[arg-type]


def verdict(*items: RankStatus, rank: int = 0) -> str | None:
    found = diagnose(items, rank, "here", PATIENCE)
    return None if found is None else found.text


def test_silence_is_named_but_not_ones_own() -> None:
    items = [RankStatus(beat(0, 1.0), 0.0), RankStatus(beat(1, 1.0), 31.0)]
    assert verdict(*items) == (
        "rank 1: not heard of for 31 s (frozen, dead, or its machine cannot be reached); last operation: 'work 1'"
    )
    assert verdict(*items, rank=1) is None


def test_silence_of_several() -> None:
    said = verdict(RankStatus(beat(0), 0.0), RankStatus(beat(1, operation="update"), 31.0), RankStatus(beat(2), 32.0))
    assert said == (
        "ranks 1 and 2: not heard of for 32 s (frozen, dead, or their machines cannot be reached); "
        "last operations: 'update', 'work 2'"
    )


def test_a_failure_comes_first() -> None:
    items = [RankStatus(beat(0, 1.0), 0.0), RankStatus(beat(2, failure="no room"), 0.0), RankStatus(beat(1), 31.0)]
    assert verdict(*items) == "rank 2 failed at 'work 2': no room"


def test_what_another_rank_said_comes_before_all() -> None:
    """It may have ended since, and killed the one to blame."""
    speaker = beat(1, ending=FailureReport("rank 2 hangs", (2,)))
    items = [RankStatus(beat(0), 0.0), RankStatus(speaker, 31.0), RankStatus(beat(2, failure="no room"), 31.0)]
    found = diagnose(items, 0, "here", PATIENCE)
    assert found is not None
    assert (found.text, [item.rank for item in found.culprits], found.said) == ("rank 2 hangs", [2], True)
