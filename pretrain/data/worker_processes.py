"""A function applied to a stream of items by several processes: results in order, bounded memory, no silent death.

Every worker has a pipe of its own and one item at a time, so there is neither a queue nor a lock that a dying process
could leave taken. A worker that ends for whatever reason closes its end of the pipe, which is noticed at once, and a
worker whose owner ends reads the end of its pipe and goes. (multiprocessing.Pool replaces a dead worker and waits for
its item for ever; before Python 3.12.1 ProcessPoolExecutor can wait too, for a full pipe that nobody reads.)
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Generic, TypeVar

from tape.errors import ProteinLMError

Item = TypeVar("Item")
Result = TypeVar("Result")

_ITEMS_IN_FLIGHT = 4  # a worker; bounds memory when the results are taken more slowly than they are made
_END_SECONDS = 10.0


class WorkerEndedError(ProteinLMError):
    """A worker process ended before its work was done."""


def map_in_processes(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``map(function, items)``, worked out by so many processes and a few items ahead.

    Closing the iterator, or any error, ends the workers at once.

    Args:
        function: picklable; what it raises is raised here.

    Raises:
        WorkerEndedError: a process ended, for example because the system was short of memory; says how.
    """
    with _Workers(function, workers) as group:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(group.submit(item))
            if len(pending) >= workers * _ITEMS_IN_FLIGHT:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _Worker(Generic[Item, Result]):
    """One process. Used by one thread at a time."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        context = get_context("spawn")  # a copy of this process would hold the other workers' pipes and locks open
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, function), daemon=True)
        self._process.start()
        theirs.close()  # so that its end closes when the process does

    def __call__(self, item: Item) -> Result:
        try:
            self._pipe.send(item)
            result, error = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise WorkerEndedError(self._how_it_ended()) from None
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """End the process at once; a thread that waits for it gets :class:`WorkerEndedError`."""
        self._process.kill()

    def release(self) -> None:
        """Free what is kept of a process that was ended."""
        self._process.join(_END_SECONDS)
        self._pipe.close()

    def _how_it_ended(self) -> str:
        self._process.join(_END_SECONDS)
        code = self._process.exitcode
        how = f"by signal {-code} ({signal.Signals(-code).name})" if code is not None and code < 0 else f"(code {code})"
        return (
            f"a worker process was ended {how} before its work was done; a system that runs short of memory does that: "
            "try fewer --workers"
        )


class _Workers(Generic[Item, Result]):
    """Several workers and a thread for each, which waits for its answers."""

    def __init__(self, function: Callable[[Item], Result], workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._all: list[_Worker[Item, Result]] = []
        self._idle: SimpleQueue[_Worker[Item, Result]] = SimpleQueue()
        self._function, self._count = function, workers

    def __enter__(self) -> _Workers[Item, Result]:
        try:
            for _ in range(self._count):
                self._all.append(_Worker(self._function))
                self._idle.put(self._all[-1])
        except BaseException:
            self.__exit__()
            raise
        return self

    def submit(self, item: Item) -> Future[Result]:
        return self._threads.submit(self._answer, item)

    def _answer(self, item: Item) -> Result:
        worker = self._idle.get()  # never waits: there are as many threads as workers
        try:
            return worker(item)
        finally:
            self._idle.put(worker)

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.end()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.release()


def _work(pipe: Connection, function: Callable[[Item], Result]) -> None:
    """The worker's life: items in, (result, error) out, until its owner closes the pipe."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and the end of a job are the owner's to answer
        signal.signal(ignored, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        while True:
            item = pipe.recv()
            try:
                answer = function(item), None
            except Exception as error:
                answer = None, error  # type: ignore[assignment]
            pipe.send(answer)
