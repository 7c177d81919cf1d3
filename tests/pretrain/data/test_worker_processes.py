"""The parallel map over worker processes: order, bounded look-ahead, errors, and killed workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

import pytest

from pretrain.data.worker_processes import WorkerExitedError, map_in_processes
from tape.errors import DataError

LARGE = b"x" * 300_000  # more than the buffer of a pipe


def answer(item: tuple[int, bytes]) -> tuple[int, bytes]:
    number, content = item
    if number == -1:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == -2:
        raise DataError("record 7 is bad")
    time.sleep(0.02 if number % 3 == 0 else 0)  # some items take longer than their successors
    return number, content


def counted(items: int, taken: list[int]) -> Iterator[tuple[int, bytes]]:
    for number in range(items):
        taken.append(number)
        yield number, LARGE


def test_results_are_ordered_and_few_items_are_in_flight() -> None:
    taken: list[int] = []
    results = map_in_processes(answer, counted(40, taken), 2)
    assert next(results) == (0, LARGE)
    assert len(taken) == 8
    assert [number for number, _ in results] == list(range(1, 40))
    assert not multiprocessing.active_children()


def test_killed_worker_raises_an_error() -> None:
    """The pipes of the other workers are full at that moment and must not block."""
    items = [(0, LARGE), (1, LARGE), (-1, LARGE), *((number, LARGE) for number in range(2, 40))]
    began = time.monotonic()
    results = map_in_processes(answer, items, 2)
    with pytest.raises(WorkerExitedError, match=r"signal 9 \(SIGKILL\).*memory.*--workers"):
        list(results)
    assert time.monotonic() - began < 20
    assert not multiprocessing.active_children()


def test_worker_killed_from_outside_and_closed_iterator() -> None:
    results = map_in_processes(answer, ((number, LARGE) for number in range(10_000)), 2)
    next(results)
    children = multiprocessing.active_children()
    assert len(children) == 2
    os.kill(children[0].pid or 0, signal.SIGKILL)
    with pytest.raises(WorkerExitedError):
        list(results)
    results = map_in_processes(answer, ((number, LARGE) for number in range(10_000)), 1)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_exception_of_the_function_is_raised_in_the_parent() -> None:
    with pytest.raises(DataError, match="record 7 is bad"):
        list(map_in_processes(answer, [(1, b""), (-2, b""), (2, b"")], 2))
    assert not multiprocessing.active_children()
