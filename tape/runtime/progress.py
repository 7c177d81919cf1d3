"""Progress of a known number of steps: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_BAR_WIDTH = 24
_REDRAW_SECONDS = 0.2
_LINE_SECONDS = 30.0


def format_duration(seconds: float) -> str:
    """``1:02:03`` or ``02:03``."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute:02d}:{second:02d}"


class Progress:
    """Counts steps and shows them; use as a context manager.

    Args:
        title: what is being done.
        total: steps to come.
        shown: False keeps silent (other ranks than the writer).
        stream: where to; stderr when None.
        line_seconds: when the stream is no terminal, one line each so many seconds, none for short work.
    """

    def __init__(
        self,
        title: str,
        total: int,
        shown: bool = True,
        stream: TextIO | None = None,
        line_seconds: float = _LINE_SECONDS,
    ) -> None:
        self._title, self._total, self._done = title, total, 0
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._interval = _REDRAW_SECONDS if self._terminal else line_seconds
        self._shown = shown
        self._start = self._last = time.monotonic()
        self._note = ""
        self._drawn = False

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count ``steps`` more; ``note`` (such as the loss) stands at the end of the line."""
        self._done += steps
        self._note = note or self._note
        now = time.monotonic()
        if self._shown and now - self._last >= self._interval:
            self._last = now
            self._draw(now)

    def _draw(self, now: float) -> None:
        elapsed = now - self._start
        fraction = self._done / self._total if self._total else 1.0
        left = format_duration(elapsed / fraction - elapsed) if fraction > 0 else "?"
        counts = f"{self._done}/{self._total} {format_duration(elapsed)}, {left} left {self._note}".rstrip()
        if self._terminal:
            filled = round(_BAR_WIDTH * min(fraction, 1.0))
            bar = "#" * filled + "." * (_BAR_WIDTH - filled)
            self._stream.write(f"\r\x1b[2K{self._title} [{bar}] {counts}")
            self._drawn = True
        else:
            self._stream.write(f"{self._title}: {counts}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the bar off the line, so that a message can stand there."""
        if self._drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()
