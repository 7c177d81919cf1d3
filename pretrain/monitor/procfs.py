"""What the operating system knows of this process: whether it computes, reads or writes, and where its main thread is.

Needs /proc for some of it; what can't be known is None, or counts as work.
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

_ROOT = Path(__file__).resolve().parents[2]
_OURS = str(_ROOT) + os.sep
_PYTHON = sysconfig.get_paths()["stdlib"] + os.sep
_PACKAGES = f"{os.sep}site-packages{os.sep}"
# Shares of one CPU below which a thread, or a process, does nothing worth speaking of.
_IDLE_SHARE = 0.1
_QUIET_SHARE = 0.1
_QUIET_SECONDS = 1.0  # the watchdog's own work comes in bursts; over so long it is less than that
_QUIET_BYTES = 1 << 16
_EXCHANGES = ("torch/distributed/", "pretrain/parallel/")
# On the stack while torch.compile works, and not while what it made runs.
_COMPILERS = ("torch/_dynamo/convert_frame.py:", "torch/_inductor/compile_fx.py:")


class AwakeClock:
    """Seconds during which this process ran: while it, or its machine, is suspended, no time passes.

    Args:
        gap: seconds between two readings that only a suspended process leaves.
        source: of time.
    """

    def __init__(self, gap: float, source: Callable[[], float] = time.monotonic) -> None:
        self._gap, self._source = gap, source
        self._last, self._lost = source(), 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            now = self._source()
            if now - self._last > self._gap:
                self._lost += now - self._last
            self._last = now
            return now - self._lost


@dataclass(frozen=True)
class Place:
    """Where a thread is.

    Attributes:
        text: for people: the innermost function, and the innermost one of this repository.
        in_collective: whether that is within a collective or point-to-point communication.
        compiling: whether torch.compile is at work.
    """

    text: str = ""
    in_collective: bool = False
    compiling: bool = False


class MainThread:
    """The main thread, as one other sees it."""

    def __init__(self) -> None:
        self._thread = threading.main_thread()
        self._clock: int | None = None
        self._asked_at, self._seconds = 0.0, 0.0
        if hasattr(time, "pthread_getcpuclockid") and self._thread.ident is not None:
            self._clock = time.pthread_getcpuclockid(self._thread.ident)

    def computed(self, now: float) -> bool:
        """Whether it computed for a good part of the time since this was asked last; False where that isn't known."""
        if self._clock is None:
            return False
        seconds, self._asked_at = now - self._asked_at, now
        before, self._seconds = self._seconds, time.clock_gettime(self._clock)
        return self._seconds - before > _IDLE_SHARE * seconds

    @property
    def folder(self) -> Path:
        """What the system says about it."""
        return Path(f"/proc/self/task/{self._thread.native_id}")

    def place(self) -> Place:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return describe(list(_outwards(frame)))


def _outwards(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    """File with line, and function, from the innermost on."""
    while frame is not None:
        yield f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}", frame.f_code.co_name
        frame = frame.f_back


def describe(places: list[tuple[str, str]]) -> Place:
    """From files with lines, and functions, from the innermost on."""
    if not places:
        return Place()
    ours = next((item for item in places if _is_ours(item[0].rpartition(":")[0])), places[0])
    return Place(
        " from ".join(f"{function} ({file})" for file, function in dict.fromkeys((places[0], ours))),
        any(file.startswith(_EXCHANGES) for file, _ in places[:2]),
        any(file.startswith(_COMPILERS) for file, _ in places),
    )


def _is_ours(path: str) -> bool:
    return not Path(path).is_absolute() and (_ROOT / path).exists()


def _short(path: str) -> str:
    _, package, inside = path.rpartition(_PACKAGES)
    return inside if package else path.removeprefix(_OURS).removeprefix(_PYTHON)


class ProcessActivity:
    """Whether this process, or one that it started, does anything at all. Used by one thread.

    Args:
        main: its main thread.
    """

    def __init__(self, main: MainThread) -> None:
        self._main = main
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
        self._known = (main.folder / "io").exists() and children.exists()
        self._seen_at = float("-inf")
        self._cpu, self._bytes = 0.0, 0
        self._worked = True

    def worked(self, now: float) -> bool:
        """Whether it did something lately, since this was asked a second ago or longer; True where that isn't known."""
        seconds = now - self._seen_at
        if self._known and seconds >= _QUIET_SECONDS:
            # not the whole process's bytes: the store in rank 0's serves all ranks
            cpu, moved = _cpu_seconds_of_all(), _bytes_moved(self._main.folder)
            # a worker that ended takes its seconds with it: that something changed is work, too
            self._worked = abs(cpu - self._cpu) > _QUIET_SHARE * seconds or moved - self._bytes > _QUIET_BYTES
            self._cpu, self._bytes, self._seen_at = cpu, moved, now
        return self._worked

    def waits_for_storage(self) -> bool:
        """Whether its main thread, or a process that it started, is in the kernel and can't be interrupted."""
        return any(_fields(folder)[:1] == ["D"] for folder in (self._main.folder, *_folders_below(os.getpid())))


def _bytes_moved(folder: Path) -> int:
    with suppress(OSError, ValueError):
        lines = (folder / "io").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(": ") for line in lines)
        return sum(int(fields[name]) for name in ("rchar", "wchar", "read_bytes", "write_bytes"))
    return 0


def _cpu_seconds_of_all() -> float:
    """Of this process and all below it: workers that load data or compile compute for it."""
    return time.process_time() + sum(map(_cpu_seconds, _folders_below(os.getpid())))


def _folders_below(process: int) -> Iterator[Path]:
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        children: list[str] = []
        with suppress(OSError):
            children = path.read_text(encoding="ascii").split()
        for child in map(int, children):
            yield Path(f"/proc/{child}")
            yield from _folders_below(child)


def _cpu_seconds(folder: Path) -> float:
    with suppress(IndexError, ValueError):
        fields = _fields(folder)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _fields(folder: Path) -> list[str]:
    """What follows the name in the system's line about a process or thread, its state first; nothing if it is gone."""
    with suppress(OSError):
        return (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []
