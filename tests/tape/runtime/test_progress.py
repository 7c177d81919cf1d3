"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io

from tape.runtime.progress import Progress, format_duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_durations() -> None:
    assert [format_duration(seconds) for seconds in (5, 65, 3725)] == ["00:05", "01:05", "1:02:05"]


def test_a_terminal_shows_a_bar_with_the_time_left() -> None:
    stream = Terminal()
    with Progress("epoch 1/2", 4, stream=stream) as progress:
        progress._last -= 1.0
        progress.advance(2, "loss 0.5")
    text = stream.getvalue()
    assert "epoch 1/2 [############............] 2/4" in text
    assert "left loss 0.5" in text
    assert text.endswith("\r\x1b[2K")  # the line is free for the next message


def test_elsewhere_short_work_is_silent_and_long_work_gives_a_line_an_interval() -> None:
    stream = io.StringIO()
    with Progress("work", 100, stream=stream) as progress:
        for _ in range(100):
            progress.advance()
    assert stream.getvalue() == ""
    with Progress("work", 2, stream=stream, line_seconds=0.0) as progress:
        progress.advance()
        progress.advance()
    assert len(stream.getvalue().splitlines()) == 2
    assert "\r" not in stream.getvalue()


def test_other_ranks_are_silent() -> None:
    stream = io.StringIO()
    with Progress("work", 1, shown=False, stream=stream, line_seconds=0.0) as progress:
        progress.advance()
    assert stream.getvalue() == ""
