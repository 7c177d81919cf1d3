"""The progress of a rank: its spans and collectives, and the time since the last progress."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from dataclasses import asdict, replace

import pytest

from pretrain.monitor.heartbeats import FailureReport, Heartbeat, parse_heartbeat
from pretrain.monitor.procfs import AwakeClock, MainThread, Place, ProcessActivity
from pretrain.monitor.rank_progress import RankProgress
from pretrain.trace import SpanTimeout, Trace


class Setting:
    """A rank with one process group and a simulated clock."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.stack = ExitStack()
        self.now = 1000.0
        self.count = 0
        clock = AwakeClock(1e9, lambda: self.now)
        self.progress = RankProgress(3, self.trace, {"tensor of 2": lambda: self.count}, clock)

    def open(self, name: str, timeout: SpanTimeout | None = None) -> None:
        """Open a span that stays open until the end of the test."""
        self.stack.enter_context(self.trace.span(name, timeout))

    def heartbeat(self, later: float = 0.0) -> Heartbeat:
        """The heartbeat ``later`` seconds after the previous one."""
        self.now += later
        return self.progress.heartbeat(None)


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(MainThread, "computed", lambda self, now: False)  # garbage collection would count
    return Setting()


def test_heartbeats_report_span_and_counts(rank: Setting) -> None:
    rank.open("iteration 5")
    rank.open("pipeline")
    rank.trace.sent.update([1, 1])
    rank.trace.received.update([7])
    rank.trace.mark("input of micro-batch 1", communicating=True)
    rank.count = 17
    heartbeat = rank.heartbeat()
    assert (heartbeat.rank, heartbeat.count, heartbeat.span) == (3, 1, "iteration 5: pipeline: input of micro-batch 1")
    assert (heartbeat.collectives, heartbeat.sent, heartbeat.received) == ({"tensor of 2": 17}, {"1": 2}, {"7": 1})
    assert (heartbeat.timeout, heartbeat.communicating) == (SpanTimeout.HANG, True)
    assert parse_heartbeat(json.dumps(asdict(heartbeat))) == heartbeat
    report = replace(heartbeat, report=FailureReport("rank 1 hangs", (1,)))
    assert parse_heartbeat(json.dumps(asdict(report))) == report


def test_time_counts_from_the_last_progress(rank: Setting) -> None:
    rank.heartbeat()
    assert rank.heartbeat(later=10.0).seconds == 10.0
    rank.count += 1  # a collective within the same span
    assert rank.heartbeat(later=1.0).seconds == 0.0
    rank.trace.mark("micro-batch 2")
    assert rank.heartbeat(later=5.0).seconds == 0.0
    rank.trace.received.update([1])
    assert rank.heartbeat(later=5.0).seconds == 0.0
    assert rank.heartbeat(later=5.0).seconds == 5.0


def test_a_rank_without_progress_is_inspected(rank: Setting) -> None:
    rank.open("optimizer step")
    rank.heartbeat()
    assert rank.heartbeat(later=0.5).place == ""
    heartbeats: list[Heartbeat] = []
    thread = threading.Thread(target=lambda: heartbeats.append(rank.heartbeat(later=30.0)))
    thread.start()
    thread.join()
    (heartbeat,) = heartbeats
    assert "tests/pretrain/monitor/test_rank_progress.py" in heartbeat.place
    assert heartbeat.waiting == heartbeat.seconds == 30.5  # it has not computed in the meantime
    assert heartbeat.idle == heartbeat.seconds


def test_idle_time_is_counted_in_a_busy_span(rank: Setting) -> None:
    rank.open("iteration 1", SpanTimeout.BUSY)
    rank.open("optimizer step")
    rank.heartbeat()
    rank.heartbeat(later=100.0)
    heartbeat = rank.heartbeat(later=100.0)
    assert heartbeat.seconds == 200.0
    assert heartbeat.idle >= 100.0


@pytest.mark.parametrize(
    ("compiling", "works", "stored"), [(True, True, False), (False, False, True)], ids=["compiling", "storage"]
)
def test_permitted_time_is_not_counted_afterwards(
    rank: Setting, monkeypatch: pytest.MonkeyPatch, compiling: bool, works: bool, stored: bool
) -> None:
    """Compilation, or a stalled file system, ends some time before the next collective starts."""
    rank.open("optimizer step")
    rank.heartbeat()
    with monkeypatch.context() as patch:
        patch.setattr(MainThread, "place", lambda self: Place("compile", compiling=compiling))
        patch.setattr(ProcessActivity, "worked", lambda self, now: works)
        patch.setattr(ProcessActivity, "waits_for_storage", lambda self: stored)
        assert rank.heartbeat(later=50.0).idle == 0.0
        patch.setattr(ProcessActivity, "worked", lambda self, now: False)
        patch.setattr(ProcessActivity, "waits_for_storage", lambda self: False)
        assert rank.heartbeat(later=20.0).idle == 20.0  # compiles, but shows no activity
    heartbeat = rank.heartbeat(later=2.0)
    assert (heartbeat.seconds, heartbeat.idle, heartbeat.timeout) == (72.0, 22.0, SpanTimeout.HANG)
