"""The protocol between a benchmark and its worker processes: one JSON object per line in each direction.

The first line to a worker is its setup; it builds its model and replies with a description. Each further line is a
request, and its reply the measurement. A worker ends at the end of its input. It replies ``{"error": TEXT}`` instead if
an exception is raised. This module also runs in the environment of the peers: it imports only the standard library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

Message = dict[str, Any]
Answer = Callable[[Message], Message]

_TEARDOWN_SECONDS = 10.0  # for the end of a process, and again after each signal


def model_sizes(setup: Message) -> dict[str, Any]:
    """The fields of a configuration that BERT models of every tool have, from a setup."""
    return {
        "hidden_size": setup["hidden"],
        "num_hidden_layers": setup["layers"],
        "num_attention_heads": setup["heads"],
        "intermediate_size": 4 * setup["hidden"],
        "max_position_embeddings": setup["positions"],
        "hidden_dropout_prob": setup["dropout"],
        "attention_probs_dropout_prob": setup["dropout"],
    }


class WorkerError(Exception):
    """A worker could not do what it was asked; the message is the last line of its error."""


def serve(open_worker: Callable[[Message], tuple[Message, Answer]]) -> None:
    """Run a worker until its input ends.

    Args:
        open_worker: builds the worker from its setup; returns its description and the function that answers requests.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print to the standard output must not mix with the replies

    def reply(message: Message) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        description, answer = open_worker(json.loads(sys.stdin.readline()))
        reply(description)
        for line in sys.stdin:
            reply(answer(json.loads(line)))
    except Exception as error:  # reported by the benchmark, which goes on without this tool
        traceback.print_exc()
        reply({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


class Worker:
    """A running worker process; a context manager that ends it.

    Args:
        module: the module to run, which calls :func:`serve`.
        python: the Python of its environment.
        setup: its setup.
        threads: number of threads of its matrix products.
        environment: variables of its environment, besides those of this process.
        timeout: seconds for imports and setup; see :meth:`ask`.

    Raises:
        WorkerError: the worker can't be set up.
    """

    def __init__(
        self,
        module: str,
        python: Path,
        setup: Message,
        threads: int,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**inherited, **variables, **(environment or {})},
        )
        try:
            self.description = self.ask(setup, timeout)
        except WorkerError:
            self.close()
            raise

    def ask(self, request: Message, timeout: float | None = None) -> Message:
        """Send a request and wait for the reply.

        Args:
            request: what to measure.
            timeout: seconds after which the process is killed; None: no limit.

        Raises:
            WorkerError: the worker replied with an error, or has ended.
        """
        with self._killed_after(timeout):
            return self._ask(request)

    def _ask(self, request: Message) -> Message:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise WorkerError(f"ended with status {self._end()}") from error
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"ended with status {self._end()}")
        reply: Message = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    @contextmanager
    def _killed_after(self, timeout: float | None) -> Iterator[None]:
        if timeout is None:
            yield
            return
        timer = threading.Timer(timeout, self._process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process, if it does not end by itself within seconds after its input."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended
            self._process.stdin.close()
        self._end()
        self._process.stdout.close()

    def _end(self) -> int | None:
        """Wait for the end of the process, which has no more to do; None if even SIGKILL does not end it.

        After an error on a GPU, the interpreter may hang on its way out; the driver may keep even a killed process.
        """
        for stop in (self._process.terminate, self._process.kill, None):
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(_TEARDOWN_SECONDS)
            if stop is not None:
                stop()
        return None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()
