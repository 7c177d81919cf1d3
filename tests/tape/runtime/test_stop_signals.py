"""Stop signals are recorded once, end the process the second time, and end workers only if their parent sends them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tape.interrupts import SAME_REQUEST_SECONDS
from tape.runtime.stop_signals import STOP_SIGNALS, StopSignals, ignore_stop_signals_in_worker, stop_signals_blocked


@pytest.fixture(autouse=True)
def without_nohup() -> Iterator[None]:
    """Under ``nohup``, SIGHUP is ignored, and StopSignals leaves it so: tests start from its default."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_recorded_and_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as requests:
        assert requests.received == 0
        signal.raise_signal(number)
        signal.raise_signal(number)  # forwarded by a launcher
        assert requests.received == number
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_the_process_at_once() -> None:
    """The second signal must come some seconds after the first; until then it counts as the same request."""
    with StopSignals() as requests:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            requests._first = (requests._first or 0.0) - SAME_REQUEST_SECONDS
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_only_its_parent_can_end_a_worker(number: signal.Signals) -> None:
    """From the fork on, a worker ignores signals of other processes; a signal of its parent ends it."""
    reader, writer = os.pipe()
    with stop_signals_blocked():
        child = os.fork()
        if child == 0:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            ignore_stop_signals_in_worker(0)
            subprocess.run(["kill", f"-{int(number)}", str(os.getpid())], check=True)
            time.sleep(0.1)
            os.write(writer, b"alive")
            time.sleep(5)
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 5) == b"alive"
    os.close(reader)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status)
    assert os.WEXITSTATUS(status) == 0


def test_outside_the_main_thread_handlers_are_unchanged() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def enter() -> None:
        with StopSignals() as requests:
            found.append((signal.getsignal(signal.SIGTERM), requests.received))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(before, 0)]
