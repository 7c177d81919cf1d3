"""What a watchdog sees of its own process: time, its main thread, whether anything is done at all."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.parallel.activity import AwakeClock, MainThread, Place, ProcessActivity, describe

needs_proc = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no /proc")


def test_no_time_passes_while_the_process_is_suspended() -> None:
    times = iter([100.0, 101.0, 102.5, 900.0, 901.0])
    clock = AwakeClock(2.0, lambda: next(times))
    assert [clock.now() - 100.0 for _ in range(4)] == [1.0, 2.5, 2.5, 3.5]


@pytest.fixture
def beside() -> Callable[..., list[object]]:
    """`beside(look)`: what another thread sees while the main thread waits, and computes."""

    def run(look: Callable[[], object]) -> list[object]:
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.append(look()))
        thread.start()
        thread.join()
        return seen

    return run


def test_where_the_main_thread_is(beside: Callable[..., list[object]]) -> None:
    (place,) = beside(MainThread().place)
    assert isinstance(place, Place)
    # it waits in Python's own code, called from here
    text = place.text
    assert text.startswith(("wait (threading.py:", "_wait_for_tstate_lock (threading.py:", "join (threading.py:"))
    assert " from run (tests/pretrain/parallel/test_activity.py:" in text
    assert not place.inside
    assert not place.compiling


def test_places() -> None:
    wait = [("torch/_ops.py:9", "__call__"), ("torch/distributed/x.py:8", "wait"), ("pretrain/training.py:7", "step")]
    assert describe(wait) == Place("__call__ (torch/_ops.py:9) from step (pretrain/training.py:7)", inside=True)
    assert describe(wait[2:]).text == "step (pretrain/training.py:7)"
    runs = [("torch/nn/functional.py:3", "linear"), ("torch/_dynamo/eval_frame.py:2", "compile_wrapper"), wait[2]]
    assert not describe(runs).compiling
    assert describe([runs[0], ("torch/_dynamo/convert_frame.py:5", "compile"), *runs[1:]]).compiling
    assert describe([]) == Place()


def test_whether_the_main_thread_computes() -> None:
    main = MainThread()
    main.computed(time.monotonic())
    time.sleep(0.2)
    assert not main.computed(time.monotonic())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert main.computed(time.monotonic())
    assert not main.waits_for_storage()


@needs_proc
def test_work_of_the_process_and_of_those_it_started() -> None:
    activity = ProcessActivity(MainThread())
    activity.worked(0.0)
    assert not activity.worked(100.0)  # looking costs next to nothing of a hundred seconds
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.3)
        assert activity.worked(101.0)
    finally:
        child.kill()
        child.wait()
    assert activity.worked(102.0)  # what it had computed is gone
    assert not activity.worked(202.0)
    with open("/dev/zero", "rb") as file:
        file.read(1 << 20)
    assert activity.worked(302.0)
