"""What the watchdog observes of its own process: a clock, the main thread, and CPU time and I/O."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.monitor.procfs import AwakeClock, MainThread, Place, ProcessActivity, _cpu_seconds, describe
from tests.support.ranks import wait_for

needs_proc = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no /proc")


def test_no_time_passes_while_the_process_is_suspended() -> None:
    times = iter([100.0, 101.0, 102.5, 900.0, 901.0])
    clock = AwakeClock(2.0, lambda: next(times))
    assert [clock.now() - 100.0 for _ in range(4)] == [1.0, 2.5, 2.5, 3.5]


def in_other_thread(action: Callable[[], object]) -> None:
    """Run an action in another thread while the main thread waits for it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures, failures


def test_the_place_of_the_main_thread_is_reported() -> None:
    main = MainThread()

    def look() -> None:
        # the main thread waits within the standard library, called from this file
        waits = r".* \(threading.py:\d+\) from in_other_thread \(tests/pretrain/monitor/test_procfs.py:\d+\)"
        wait_for(lambda: re.fullmatch(waits, main.place().text) is not None, "the main thread to wait")
        place = main.place()
        assert not place.in_collective
        assert not place.compiling

    in_other_thread(look)


def test_a_stack_is_described_by_its_collective_and_our_frame() -> None:
    wait = [
        ("torch/_ops.py:9", "__call__"),
        ("torch/distributed/x.py:8", "wait"),
        ("pretrain/train/trainer.py:7", "step"),
    ]
    expected = Place("__call__ (torch/_ops.py:9) from step (pretrain/train/trainer.py:7)", in_collective=True)
    assert describe(wait) == expected
    assert describe(wait[2:]).text == "step (pretrain/train/trainer.py:7)"
    runs = [("torch/nn/functional.py:3", "linear"), ("torch/_dynamo/eval_frame.py:2", "compile_wrapper"), wait[2]]
    assert not describe(runs).compiling
    assert describe([runs[0], ("torch/_dynamo/convert_frame.py:5", "compile"), *runs[1:]]).compiling
    assert describe([]) == Place()


def test_a_main_thread_that_uses_the_cpu_computes() -> None:
    """The clock is simulated, because real durations depend on the other load of the machine."""
    main = MainThread()
    main.computed(0.0)
    assert not main.computed(100.0)
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass
    assert main.computed(100.5)


@needs_proc
def test_work_of_a_child_process_counts_as_activity() -> None:
    activity = ProcessActivity(MainThread())
    activity.worked(0.0)
    assert not activity.worked(100.0)  # measuring takes a negligible part of a hundred seconds
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        wait_for(lambda: _cpu_seconds(Path(f"/proc/{child.pid}")) > 0.5, "work of the child")
        assert activity.worked(101.0)
    finally:
        child.kill()
        child.wait()
    assert activity.worked(102.0)  # the child's CPU time is gone from the total
    assert not activity.worked(202.0)
    in_other_thread(read)  # I/O of other threads, such as the heartbeat store, doesn't count
    assert not activity.worked(302.0)
    read()
    assert activity.worked(402.0)


def read() -> None:
    with open("/dev/zero", "rb") as file:
        file.read(1 << 20)


@needs_proc
def test_uninterruptible_sleep_is_detected(tmp_path: Path) -> None:
    """A process in posix_spawn sleeps uninterruptibly until its child has started: here, once the pipe has a writer."""
    os.mkfifo(pipe := tmp_path / "pipe")
    activity = ProcessActivity(MainThread())
    assert not activity.waits_for_storage()
    spawn = "import os, sys; os.posix_spawn('/bin/true', ['true'], {}, "
    spawn += "file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)])"
    child = subprocess.Popen([sys.executable, "-c", spawn, str(pipe)])
    try:
        wait_for(activity.waits_for_storage, "uninterruptible sleep of the child")
    finally:
        pipe.open("w").close()
        child.wait(30)
    assert not activity.waits_for_storage()
