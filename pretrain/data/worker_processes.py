"""An ordered parallel map over worker processes, with bounded memory, that fails when a worker dies.

Every worker has its own pipe and processes one item at a time, so there is neither a queue nor a lock that a killed
process could leave locked. A worker that exits for any reason closes its end of the pipe, which the parent notices
immediately; a worker whose parent exits reads the end of the pipe and exits too. (multiprocessing.Pool replaces a
dead worker and waits for its item forever; before Python 3.12.1 ProcessPoolExecutor can also deadlock, on a full pipe
that nobody reads.)
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

_ITEMS_IN_FLIGHT = 4  # per worker; bounds memory when results are consumed more slowly than they are produced
_JOIN_SECONDS = 10.0


class WorkerExitedError(ProteinLMError):
    """A worker process exited before its work was done."""


def map_in_processes(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``map(function, items)`` computed by worker processes, a few items ahead of the consumer.

    Closing the iterator, or any error, kills the workers.

    Args:
        function: a picklable function; exceptions that it raises are raised here.
        items: the arguments, picklable.
        workers: number of processes.

    Raises:
        WorkerExitedError: if a process exits, for example killed for lack of memory; the message has its exit status.
    """
    with _WorkerPool(function, workers) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(item))
            if len(pending) >= workers * _ITEMS_IN_FLIGHT:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _Worker(Generic[Item, Result]):
    """The parent's handle of one worker process, used by one thread at a time."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        context = get_context("spawn")  # a forked process would keep the pipes and locks of the other workers open
        self._pipe, worker_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(worker_end, function), daemon=True)
        self._process.start()
        worker_end.close()  # so that the worker has the only handle and its exit closes the pipe

    def __call__(self, item: Item) -> Result:
        try:
            self._pipe.send(item)
            result, error = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise WorkerExitedError(self._exit_message()) from None
        if error is not None:
            raise error
        return result

    def kill(self) -> None:
        """Kill the process; a thread that waits for its result gets :class:`WorkerExitedError`."""
        self._process.kill()

    def release(self) -> None:
        """Reap a killed process and close its pipe."""
        self._process.join(_JOIN_SECONDS)
        self._pipe.close()

    def _exit_message(self) -> str:
        self._process.join(_JOIN_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            status = f"was killed by signal {-code} ({signal.Signals(-code).name})"
        else:
            status = f"exited with code {code}"

        return (
            f"a worker process {status} before its work was done; the system kills processes when memory runs out: "
            "try fewer --workers"
        )


class _WorkerPool(Generic[Item, Result]):
    """Several worker processes, with one thread per worker that waits for its results."""

    def __init__(self, function: Callable[[Item], Result], workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._workers: list[_Worker[Item, Result]] = []
        self._idle: SimpleQueue[_Worker[Item, Result]] = SimpleQueue()
        self._function, self._count = function, workers

    def __enter__(self) -> _WorkerPool[Item, Result]:
        try:
            for _ in range(self._count):
                self._workers.append(_Worker(self._function))
                self._idle.put(self._workers[-1])
        except BaseException:
            self.__exit__()
            raise
        return self

    def submit(self, item: Item) -> Future[Result]:
        return self._threads.submit(self._run, item)

    def _run(self, item: Item) -> Result:
        worker = self._idle.get()  # never blocks: there are as many threads as workers
        try:
            return worker(item)
        finally:
            self._idle.put(worker)

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.release()


def _serve(pipe: Connection, function: Callable[[Item], Result]) -> None:
    """Main function of a worker: receive items and send (result, error) until the parent closes the pipe."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # sent to the process group; the parent handles them
        signal.signal(ignored, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        while True:
            item = pipe.recv()
            try:
                reply = function(item), None
            except Exception as error:
                reply = None, error  # type: ignore[assignment]
            pipe.send(reply)
