"""What a rank says of itself: how far it has come, and since when it hasn't got on."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace

import pytest

from pretrain.operations import Allowance, Operations
from pretrain.parallel.activity import AwakeClock, Place
from pretrain.parallel.heartbeats import Beat, Ending, read_beat
from pretrain.parallel.progress import Progress


class Setting:
    """A rank with one group, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.operations = Operations()
        self.now = 1000.0
        self.count = 0
        clock = AwakeClock(1e9, lambda: self.now)
        self.progress = Progress(3, self.operations, {"tensor of 2": lambda: self.count}, clock)

    def beat(self, later: float = 0.0) -> Beat:
        self.now += later
        return self.progress.beat(None)


@pytest.fixture
def rank() -> Setting:
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
    assert read_beat(json.dumps(asdict(beat))) == beat
    ending = replace(beat, ending=Ending("rank 1 hangs", (1,)))
    assert read_beat(json.dumps(asdict(ending))) == ending


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
    beats: list[Beat] = []
    thread = threading.Thread(target=lambda: beats.append(rank.beat(later=30.0)))
    thread.start()
    thread.join()
    (beat,) = beats
    assert "tests/pretrain/parallel/test_progress.py" in beat.place
    assert beat.waiting == beat.seconds == 30.5  # so many seconds for nothing
    assert beat.quiet == 0.0  # matters to first steps only


def test_first_steps_are_asked_whether_they_work(rank: Setting) -> None:
    rank.operations.iteration(1, lenient=True)
    rank.operations.at("update")
    rank.beat()
    rank.beat(later=100.0)
    beat = rank.beat(later=100.0)
    assert beat.seconds == 200.0
    assert beat.quiet >= 100.0


def test_compiling_again_may_take_as_long_as_it_works(rank: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    rank.operations.at("update")
    rank.beat()
    assert rank.beat(later=50.0).allowance is Allowance.NONE
    monkeypatch.setattr("pretrain.parallel.activity.MainThread.place", lambda self: Place("compile", compiling=True))
    assert rank.beat(later=50.0).allowance is Allowance.WORKING
