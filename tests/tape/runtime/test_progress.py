"""Progress bars in a terminal, in a log file and on ranks that print nothing."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from tape.runtime.progress import Throughput, duration, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_the_remaining_time_and_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("epoch 1/2", 4, "step") as bar:
        bar.start_t -= 1.0
        bar.last_print_t -= 1.0
        bar.update(2)
        assert "epoch 1/2:  50%" in stream.getvalue()
        assert "| 2/4 [00:01<00:01" in stream.getvalue()
        assert "step/s" in stream.getvalue()
        bar.clear()
        assert stream.getvalue().rstrip("\r").endswith(" ")  # the line is free for a log message
    assert stream.getvalue().rstrip("\r").endswith(" ")


def test_a_log_file_gets_one_line_per_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("work", 100) as bar:
        for _ in range(100):
            bar.update()
    assert stream.getvalue() == ""
    with progress_bar("work", 2, line_seconds=0.0) as bar:
        bar.update()
        bar.clear()
        bar.update()
    assert [line.partition("|")[0] for line in stream.getvalue().splitlines()] == [
        "work:   0%",
        "work:  50%",
        "work: 100%",
    ]
    assert "\r" not in stream.getvalue()


def test_bytes_have_prefixes_and_a_resumed_transfer_starts_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("file", 2_000_000, "B", initial=500_000, line_seconds=0.0) as bar:
        bar.update(500_000)
    assert "50%" in stream.getvalue()
    assert "1.00M/2.00M" in stream.getvalue()


def test_other_ranks_print_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("work", 1, disable=True, line_seconds=0.0) as bar:
        bar.update()
    assert stream.getvalue() == ""


def test_no_thread_is_left_for_forked_workers_to_inherit() -> None:
    before = threading.active_count()
    with progress_bar("work", 1):
        assert threading.active_count() == before


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (61.9, "01:01"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_throughput_and_time_left_are_those_of_the_steps_since_the_last_line() -> None:
    times = iter([0.0, 10.0, 12.0])
    speed = Throughput("proteins", lambda: next(times))
    for _ in range(4):
        speed.add(30)
    assert speed.text(steps_left=40) == "12 proteins/s, 01:40 left"
    speed.add(30)
    assert speed.text(steps_left=39) == "15 proteins/s, 01:18 left"
