"""One error for a data loader whose worker process ends: killed for its memory, or by a bus error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tape.errors import ProteinLMError

# PyTorch's RuntimeErrors; the second one hides the first, its cause, if the loader was waiting for the worker
_KILLED = re.compile(r"DataLoader worker \(pid \d+\) is killed by signal: ([^.]+)\.")
_EXITED = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) exited unexpectedly")
_CAUSES = {
    "Killed": "the system kills processes when memory runs out: give fewer worker processes (--num_workers)",
    "Bus error": (
        "a file that it was reading was shortened or its disk failed, or the shared memory is full (df /dev/shm):"
        " restore the file, or give --num_workers 0, which needs no shared memory"
    ),
}
_UNKNOWN_CAUSE = "give --num_workers 0 to see the error in this process"


class WorkerExitError(ProteinLMError):
    """A worker process of a data loader ended before its work was done."""


@contextmanager
def explain_worker_exit() -> Iterator[None]:
    """Raise one error if a worker process of a data loader ends inside the block.

    PyTorch reports it from a signal handler, which interrupts the main thread anywhere, so that the block must contain
    the use of the batches, not only the data loader.

    Raises:
        WorkerExitError: a worker ended. Names the signal, its usual causes, and what helps.
    """
    try:
        yield
    except RuntimeError as error:
        explanation = _explanation(error)
        if explanation is None:
            raise
        raise WorkerExitError(f"a worker process of the data loader {explanation}") from error


def _explanation(error: BaseException) -> str | None:
    """How a worker ended, and why; None for any other error."""
    killed = _KILLED.search(f"{error}\n{error.__cause__}")
    if killed is not None:
        return f"was killed by a signal ({killed[1]}); {_CAUSES.get(killed[1], _UNKNOWN_CAUSE)}"
    return f"exited; {_UNKNOWN_CAUSE}" if _EXITED.search(str(error)) else None
