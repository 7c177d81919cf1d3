"""Activity of this process as the operating system reports it: CPU time, I/O, and the stack of its main thread.

Some of it is read from /proc. On a system without /proc, a process counts as active.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tape.runtime.process_identity import stat_fields

_ROOT = Path(__file__).resolve().parents[2]
_REPOSITORY = str(_ROOT) + os.sep
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep
_SITE_PACKAGES = f"{os.sep}site-packages{os.sep}"
# Fractions of one CPU below which the main thread, or the process, counts as idle.
_IDLE_THREAD_SHARE = 0.1
_IDLE_PROCESS_SHARE = 0.1
_IDLE_PROCESS_BYTES = 1 << 16
# Activity is measured over at least this many seconds; the watchdog's own work comes in bursts and is below the limits.
_MEASURED_SECONDS = 1.0
# Files of functions that wait for other ranks.
_COMMUNICATION = ("torch/distributed/", "pretrain/parallel/")
# On the stack while torch.compile compiles, but not while compiled code runs.
_COMPILERS = ("torch/_dynamo/convert_frame.py:", "torch/_inductor/compile_fx.py:")


class AwakeClock:
    """A clock that stops while this process, or its machine, is suspended.

    Args:
        gap: seconds between two readings above which the process is taken to have been suspended in between.
        source: returns the current time in seconds.
    """

    def __init__(self, gap: float, source: Callable[[], float] = time.monotonic) -> None:
        self._gap, self._source = gap, source
        self._last, self._suspended = source(), 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """The current time in seconds, without the time during which the process was suspended."""
        with self._lock:
            now = self._source()
            if now - self._last > self._gap:
                self._suspended += now - self._last
            self._last = now
            return now - self._suspended


@dataclass(frozen=True)
class Place:
    """Where a thread is.

    Attributes:
        text: the innermost function on the stack, and the innermost one of this repository, with file and line.
        in_collective: whether the thread is within a collective or a point-to-point operation.
        compiling: whether torch.compile is compiling.
    """

    text: str = ""
    in_collective: bool = False
    compiling: bool = False


class MainThread:
    """The main thread of this process, observed from another thread."""

    def __init__(self) -> None:
        self._thread = threading.main_thread()
        self._clock: int | None = None
        self._measured_at, self._seconds = 0.0, 0.0
        if hasattr(time, "pthread_getcpuclockid") and self._thread.ident is not None:
            self._clock = time.pthread_getcpuclockid(self._thread.ident)

    def computed(self, now: float) -> bool:
        """Whether it used more than a little CPU time since the previous call; False where that cannot be measured."""
        if self._clock is None:
            return False
        seconds, self._measured_at = now - self._measured_at, now
        before, self._seconds = self._seconds, time.clock_gettime(self._clock)
        return self._seconds - before > _IDLE_THREAD_SHARE * seconds

    @property
    def folder(self) -> Path:
        """Its directory in /proc."""
        return Path(f"/proc/self/task/{self._thread.native_id}")

    def place(self) -> Place:
        """The function that it is in now."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return describe(list(_stack(frame)))


def _stack(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    """Yield (``file:line``, function) for each frame, starting with the innermost."""
    while frame is not None:
        yield f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}", frame.f_code.co_name
        frame = frame.f_back


def describe(places: list[tuple[str, str]]) -> Place:
    """Describe a stack, given as (``file:line``, function) of each frame, innermost first."""
    if not places:
        return Place()
    own = next((item for item in places if _is_own(item[0].rpartition(":")[0])), places[0])
    return Place(
        " from ".join(f"{function} ({file})" for file, function in dict.fromkeys((places[0], own))),
        any(file.startswith(_COMMUNICATION) for file, _ in places[:2]),
        any(file.startswith(_COMPILERS) for file, _ in places),
    )


def _is_own(path: str) -> bool:
    return not Path(path).is_absolute() and (_ROOT / path).exists()


def _short(path: str) -> str:
    _, package, inside = path.rpartition(_SITE_PACKAGES)
    return inside if package else path.removeprefix(_REPOSITORY).removeprefix(_STANDARD_LIBRARY)


class ProcessActivity:
    """CPU time and I/O of this process and of the processes that it started. Not thread-safe.

    Args:
        main: the main thread of this process.
    """

    def __init__(self, main: MainThread) -> None:
        self._main = main
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
        self._measurable = (main.folder / "io").exists() and children.exists()
        self._measured_at = float("-inf")
        self._cpu, self._bytes = 0.0, 0
        self._worked = True

    def worked(self, now: float) -> bool:
        """Whether it was active during the last measurement interval; True where that cannot be measured."""
        seconds = now - self._measured_at
        if self._measurable and seconds >= _MEASURED_SECONDS:
            # Only the main thread's I/O counts: in rank 0's process, the heartbeat store serves all ranks.
            cpu, moved = _cpu_seconds_of_all(), _bytes_moved(self._main.folder)
            # The total falls when a child process ends; that is activity, too.
            self._worked = (
                abs(cpu - self._cpu) > _IDLE_PROCESS_SHARE * seconds or moved - self._bytes > _IDLE_PROCESS_BYTES
            )
            self._cpu, self._bytes, self._measured_at = cpu, moved, now
        return self._worked

    def waits_for_storage(self) -> bool:
        """Whether its main thread, or a process that it started, is in uninterruptible sleep (state D)."""
        return any(_fields(folder)[:1] == ["D"] for folder in (self._main.folder, *_descendant_folders(os.getpid())))


def _bytes_moved(folder: Path) -> int:
    """Bytes read and written by a thread so far."""
    with suppress(OSError, ValueError):
        lines = (folder / "io").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(": ") for line in lines)
        return sum(int(fields[name]) for name in ("rchar", "wchar", "read_bytes", "write_bytes"))
    return 0


def _cpu_seconds_of_all() -> float:
    """CPU time of this process and its descendants, such as data-loader and compiler workers."""
    return time.process_time() + sum(map(_cpu_seconds, _descendant_folders(os.getpid())))


def _descendant_folders(process: int) -> Iterator[Path]:
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        children: list[str] = []
        with suppress(OSError):
            children = path.read_text(encoding="ascii").split()
        for child in map(int, children):
            yield Path(f"/proc/{child}")
            yield from _descendant_folders(child)


def _cpu_seconds(folder: Path) -> float:
    with suppress(IndexError, ValueError):
        fields = _fields(folder)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _fields(folder: Path) -> list[str]:
    """As :func:`stat_fields`; empty if the process has ended."""
    with suppress(OSError):
        return stat_fields(folder)
    return []
