"""What a rank says of itself: how far it has come, and since when it hasn't got on."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace

import pytest

from pretrain.monitor.heartbeats import FailureReport, Heartbeat, parse_heartbeat
from pretrain.monitor.procfs import AwakeClock, MainThread, Place, ProcessActivity
from pretrain.monitor.rank_progress import RankProgress
from pretrain.trace import Allowance, Operations


class Setting:
    """A rank with one group, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.operations = Operations()
        self.now = 1000.0
        self.count = 0
        clock = AwakeClock(1e9, lambda: self.now)
        self.progress = RankProgress(3, self.operations, {"tensor of 2": lambda: self.count}, clock)

    def beat(self, later: float = 0.0) -> Heartbeat:
        self.now += later
        return self.progress.beat(None)


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(MainThread, "computed", lambda self, now: False)  # a collection of garbage would count
    return Setting()


def test_beats_tell_what_is_done(rank: Setting) -> None:
    rank.operations.iteration(5, lenient=False)
    rank.operations.at("pipeline")
    rank.operations.sent.update([1, 1])
    rank.operations.wanted.update([7])
    rank.operations.within("input of micro-batch 1", exchanging=True)
    rank.count = 17
    beat = rank.beat()
    assert (beat.rank, beat.count, beat.operation) == (3, 1, "iteration 5: pipeline: input of micro-batch 1")
    assert (beat.marks, beat.sent, beat.wanted) == ({"tensor of 2": 17}, {"1": 2}, {"7": 1})
    assert (beat.allowance, beat.exchanging) == (Allowance.NONE, True)
    assert parse_heartbeat(json.dumps(asdict(beat))) == beat
    ending = replace(beat, ending=FailureReport("rank 1 hangs", (1,)))
    assert parse_heartbeat(json.dumps(asdict(ending))) == ending


def test_time_counts_from_the_last_thing_begun(rank: Setting) -> None:
    rank.beat()
    assert rank.beat(later=10.0).seconds == 10.0
    rank.count += 1  # an exchange, within the same operation
    assert rank.beat(later=1.0).seconds == 0.0
    rank.operations.within("micro-batch 2")
    assert rank.beat(later=5.0).seconds == 0.0
    rank.operations.wanted.update([1])
    assert rank.beat(later=5.0).seconds == 0.0
    assert rank.beat(later=5.0).seconds == 5.0


def test_a_rank_that_stands_is_looked_at(rank: Setting) -> None:
    rank.operations.at("update")
    rank.beat()
    assert rank.beat(later=0.5).place == ""
    beats: list[Heartbeat] = []
    thread = threading.Thread(target=lambda: beats.append(rank.beat(later=30.0)))
    thread.start()
    thread.join()
    (beat,) = beats
    assert "tests/pretrain/monitor/test_rank_progress.py" in beat.place
    assert beat.waiting == beat.seconds == 30.5  # so many seconds for nothing
    assert beat.quiet == beat.seconds


def test_first_steps_are_asked_whether_they_work(rank: Setting) -> None:
    rank.operations.iteration(1, lenient=True)
    rank.operations.at("update")
    rank.beat()
    rank.beat(later=100.0)
    beat = rank.beat(later=100.0)
    assert beat.seconds == 200.0
    assert beat.quiet >= 100.0


@pytest.mark.parametrize(
    ("compiling", "works", "stored"), [(True, True, False), (False, False, True)], ids=["compiling", "storage"]
)
def test_time_that_is_given_is_not_counted_afterwards(
    rank: Setting, monkeypatch: pytest.MonkeyPatch, compiling: bool, works: bool, stored: bool
) -> None:
    """Compiling again, or a file system that paused, is over some time before the next exchange begins."""
    rank.operations.at("update")
    rank.beat()
    with monkeypatch.context() as patch:
        patch.setattr(MainThread, "place", lambda self: Place("compile", compiling=compiling))
        patch.setattr(ProcessActivity, "worked", lambda self, now: works)
        patch.setattr(ProcessActivity, "waits_for_storage", lambda self: stored)
        assert rank.beat(later=50.0).quiet == 0.0
        patch.setattr(ProcessActivity, "worked", lambda self, now: False)
        patch.setattr(ProcessActivity, "waits_for_storage", lambda self: False)
        assert rank.beat(later=20.0).quiet == 20.0  # compiles, but nothing is done for it
    beat = rank.beat(later=2.0)
    assert (beat.seconds, beat.quiet, beat.allowance) == (72.0, 22.0, Allowance.NONE)
