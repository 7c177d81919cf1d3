"""A stop signal at any line of the code that creates and removes temporary files and locks leaves none behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tape import interrupts
from tape.errors import run_cli
from tape.hub import cache
from tape.interrupts import stop_allowed, stop_deferred
from tape.io.writing import atomic, atomic_directory, atomic_write, link_or_copy, scratch_directory, temporary
from tape.runtime import run_lock as locks
from tape.runtime.run_lock import lock_beside, run_lock
from tests.support.child_processes import exit_code_of_child
from tests.support.terminal_signals import LAST_LINES, terminal_handlers

Trace = Callable[[FrameType, str, Any], Any]
TRACED = {module.__file__ for module in (atomic, cache, contextlib, interrupts, locks, tempfile, temporary)}
SIGNALS = tuple(LAST_LINES)
SECONDS_PER_LINE = 10


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    with terminal_handlers():
        yield


def stop(number: int = signal.SIGTERM) -> None:
    signal.raise_signal(number)


def write(path: Path) -> AbstractContextManager[object]:
    return atomic_write(path / "out")


def directory(path: Path) -> AbstractContextManager[object]:
    return atomic_directory(path / "out")


def replacement(path: Path) -> AbstractContextManager[object]:
    (path / "out").mkdir(exist_ok=True)
    return atomic_directory(path / "out", overwrite=True)


def lock(path: Path) -> AbstractContextManager[object]:
    return run_lock(lock_beside(path / "new" / "out"), path / "new" / "out", "wait")


def scratch(path: Path) -> AbstractContextManager[object]:
    return scratch_directory("out_")


@contextlib.contextmanager
def link(path: Path) -> Iterator[None]:
    source = path.parent / "source"
    source.touch()
    link_or_copy(source, path / "out")
    yield


@contextlib.contextmanager
def download(path: Path) -> Iterator[None]:
    (path / "out").mkdir(exist_ok=True)
    cache._replace("somewhere", path / "out")
    yield


class _StopAtLine:
    """A trace function that sends a signal before the n-th line that runs in the traced files."""

    def __init__(self, line: int, number: int) -> None:
        self._left, self._number = line, number
        self.reached = False

    def __call__(self, frame: FrameType, event: str, _: object) -> Trace | None:
        if frame.f_code.co_filename not in TRACED or frame.f_code.co_name == "_receive":
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.reached = True
                stop(self._number)
        return self


def run_with_signal_at(line: int, number: int, create: Callable[[], AbstractContextManager[object]]) -> bool:
    """Whether the line was reached."""
    tracer = _StopAtLine(line, number)

    def command() -> None:
        sys.settrace(tracer)
        try:
            with create():
                pass
        finally:
            sys.settrace(None)

    assert run_cli(command) == (128 + number if tracer.reached else 0), f"before line {line}"
    return tracer.reached


@pytest.mark.parametrize("without_exchange", [False, True])
@pytest.mark.parametrize("create", [write, directory, replacement, lock, scratch, link, download])
def test_a_signal_at_any_line_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    create: Callable[[Path], AbstractContextManager[object]],
    without_exchange: bool,
) -> None:
    if without_exchange:  # and without hard links
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "out"))
    monkeypatch.setattr(cache, "_fetch", lambda address, folder: (folder / "model.bin").touch())
    folder = tmp_path / "out"
    folder.mkdir()

    def stop_at_each_line() -> int:
        lines = 1
        while run_with_signal_at(lines, SIGNALS[lines % 3], lambda: create(folder)):
            assert {path.name for path in folder.iterdir()} <= {"out"}, f"before line {lines}"
            assert create is not replacement or (folder / "out").is_dir()
            if (folder / "out").is_dir():
                shutil.rmtree(folder / "out")
            (folder / "out").unlink(missing_ok=True)
            signal.alarm(SECONDS_PER_LINE)
            lines += 1
        assert lines > 20
        return 0

    # in a process of its own: a signal at the wrong line leaves a lock of tempfile, for which the next line would wait
    code = exit_code_of_child(stop_at_each_line, SECONDS_PER_LINE)
    assert code != -signal.SIGALRM, f"hangs for {SECONDS_PER_LINE} s"
    assert code == 0, "see the traceback in stderr"


def test_a_deferred_signal_is_raised_at_the_end_of_the_block() -> None:
    passed = []

    def command() -> None:
        with stop_deferred():
            stop()
            passed.append("inside")
        passed.append("after")

    assert run_cli(command) == 143
    assert passed == ["inside"]


def test_a_deferred_signal_is_raised_where_stops_are_allowed_again() -> None:
    passed = []

    def command() -> None:
        with stop_deferred():
            stop()
            try:
                with stop_allowed():
                    passed.append("allowed")
            finally:
                passed.append("removed")

    assert run_cli(command) == 143
    assert passed == ["removed"]


def test_the_outer_block_counts() -> None:
    passed = []

    def command() -> None:
        with stop_deferred():
            with stop_deferred(), stop_allowed():
                stop()
                passed.append("inner")
            passed.append("outer")

    assert run_cli(command) == 143
    assert passed == ["inner", "outer"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_an_import_is_raised_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "importing.py").write_text(f"import os; os.kill(os.getpid(), {int(number)}); ended = True\n")
    monkeypatch.delitem(sys.modules, "importing", raising=False)
    passed = []

    def command() -> None:
        with atomic_write(tmp_path / "out"):
            passed.append(import_module("importing").ended)
            time.sleep(5)

    assert run_cli(command) == 128 + number
    assert passed == [True]
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_an_import_ends_a_process_without_temporary_files_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "catching.py").write_text(
        f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\nexcept BaseException:\n    os._exit(3)\n"
    )
    assert exit_code_of_child(lambda: run_cli(lambda: import_module("catching"))) == 128 + number
    assert capfd.readouterr().err == f"{LAST_LINES[signal.Signals(number)]}\n"


def test_a_signal_during_an_import_that_hangs_is_raised_after_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tape.interrupts._LONGEST_IMPORT_SECONDS", 0.1)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hanging.py").write_text("import os, time; os.kill(os.getpid(), 15); time.sleep(5)\n")

    def command() -> None:
        with stop_deferred(), stop_allowed():
            import_module("hanging")

    began = time.monotonic()
    assert run_cli(command) == 143
    assert time.monotonic() - began < 4


def test_a_command_that_is_run_by_an_import_is_interrupted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "running.py").write_text(
        "import os, time\n"
        "from tape.errors import run_cli\n"
        "began = time.monotonic()\n"
        "code = run_cli(lambda: [os.kill(os.getpid(), 15), time.sleep(5)])\n"
        "seconds = time.monotonic() - began\n"
    )
    module = import_module("running")
    assert module.code == 143
    assert module.seconds < 4


def test_a_later_signal_ends_a_block_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tape.interrupts.SAME_REQUEST_SECONDS", 0.0)

    def hangs() -> None:
        with stop_deferred():
            stop()
            stop()

    assert exit_code_of_child(lambda: run_cli(hangs)) == -signal.SIGTERM
