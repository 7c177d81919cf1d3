"""Progress bars with tqdm: a bar in a terminal and in a notebook, one line every 30 seconds in a log file.

Also the throughput and the time left, for lines of a log.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, TextIO

with warnings.catch_warnings():
    # of tqdm in a notebook without ipywidgets, where its bar is one of text
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

_LINE_SECONDS = 30.0
# not an import of tqdm.notebook: it imports IPython where that is installed, half a second
_IN_A_NOTEBOOK = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


class _LogFile:
    """A stream on which every update of a bar is a line of its own, without carriage returns and cursor movements."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.replace("\x1b[A", "").strip()
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


class _ProgressBar(tqdm):
    monitor_interval = 0  # tqdm's monitor thread would exist when data loaders fork their workers


def progress_bar(
    description: str,
    total: int | None,
    unit: str = "it",
    *,
    initial: int = 0,
    disable: bool = False,
    line_seconds: float = _LINE_SECONDS,
) -> tqdm:
    """A tqdm bar on stderr that disappears when it is closed; use it as a context manager and call ``update(n)``.

    Args:
        description: text in front of the bar.
        total: number of units of all the work; None if unknown.
        unit: name of one unit; ``"B"`` (bytes) is shown with SI prefixes.
        initial: units that are done already.
        disable: show nothing, as on all ranks but the main one.
        line_seconds: if stderr is a file or a pipe, the interval between its lines; work shorter than that has none.
    """
    options: dict[str, Any] = {
        "total": total,
        "desc": description,
        "unit": unit,
        "initial": initial,
        "disable": disable,
    }
    options |= {"unit_scale": unit == "B", "leave": False, "miniters": 1}
    if not sys.stderr.isatty() and not _IN_A_NOTEBOOK:
        options |= {"file": _LogFile(sys.stderr), "mininterval": line_seconds, "delay": line_seconds}
    return _ProgressBar(**options)


def duration(seconds: float) -> str:
    """A time as ``minutes:seconds``, or from an hour on ``hours:minutes:seconds``."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, whole = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes:02d}:{whole:02d}"


class Throughput:
    """Counts steps and units of work between two log lines.

    Args:
        unit: name of the units, in the plural.
        clock: returns the time in seconds.
    """

    def __init__(self, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit, self._clock = unit, clock
        self._start, self._steps, self._units = clock(), 0, 0

    def add(self, units: int) -> None:
        """Count a step with so many units."""
        self._steps, self._units = self._steps + 1, self._units + units

    def text(self, steps_left: int) -> str:
        """``120 proteins/s, 02:10 left``, of the steps since the last call, and for the steps that are left."""
        now = self._clock()
        seconds, steps, units = max(now - self._start, 1e-9), max(self._steps, 1), self._units
        self._start, self._steps, self._units = now, 0, 0
        rate = units / seconds
        return f"{rate:,.{0 if rate >= 10 else 2}f} {self._unit}/s, {duration(steps_left * seconds / steps)} left"
