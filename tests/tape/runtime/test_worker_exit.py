"""A worker process that is killed is one error that names the signal and its usual causes."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from tape.runtime.worker_exit import WorkerExitError, explain_worker_exit


class _Fatal(Dataset[int]):
    """Ends the process that reads its second item."""

    def __init__(self, fault: int) -> None:
        self._fault = fault

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        if index:
            if self._fault:
                os.kill(os.getpid(), self._fault)
            os._exit(3)
        return index


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (signal.SIGKILL, r"killed by a signal \(Killed\); .* memory runs out: give fewer worker processes"),
        (signal.SIGBUS, r"killed by a signal \(Bus error\); a file .* was shortened .* or the shared memory is full"),
        (0, r"exited; give --num_workers 0 to see the error"),
    ],
)
def test_a_worker_that_ends_is_one_error(fault: int, message: str) -> None:
    loader: DataLoader[Any] = DataLoader(_Fatal(fault), num_workers=1)
    with pytest.raises(WorkerExitError, match=message), explain_worker_exit():
        list(loader)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="^shapes differ$"), explain_worker_exit():
        raise RuntimeError("shapes differ")
