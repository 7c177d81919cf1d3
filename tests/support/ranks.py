"""Runs of pretraining in separate processes that a test may kill, stop or signal.

They are forked from a server that has imported everything once, so that starting one takes a fraction of a second.
Each process gets its rank and the rendezvous from environment variables, as from torchrun.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from pretrain.pretrain_tape import main
from tape.errors import run_cli

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.ranks", "torch._dynamo", "torch.distributed._functional_collectives"])


@dataclass
class Rank:
    """One process of a run.

    Attributes:
        process: the process, to send signals to and to wait for.
        log: file with its stdout and stderr.
    """

    process: ForkServerProcess
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def end(self, timeout: float = 60.0) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {timeout} s:\n{self.text}")
        return code


def start_ranks(
    flags: Sequence[str],
    folder: Path,
    world: int = 1,
    fault: str | None = None,
    flags_of_ranks: Sequence[Sequence[object]] | None = None,
) -> list[Rank]:
    """Start a run of pretrain_tape.py.

    Args:
        flags: the command line.
        folder: directory of the logs.
        world: number of processes.
        fault: ``module:function`` of a test, called in each process with its rank before the run begins.
        flags_of_ranks: further flags of each rank, such as directories of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    ranks = []
    for rank in range(world):
        environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        if world > 1:
            environment |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        log = folder / f"rank_{rank}_{len(list(folder.iterdir()))}.log"
        own = [*flags, *(str(word) for word in (flags_of_ranks[rank] if flags_of_ranks is not None else ()))]
        process = CONTEXT.Process(target=_run, args=(own, environment, str(log), rank, fault))
        process.start()
        ranks.append(Rank(process, log))
    return ranks


def _run(flags: list[str], environment: dict[str, str], log: str, rank: int, fault: str | None) -> None:
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(stream, descriptor)
    sys.stdout = open(1, "w", buffering=1, closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, encoding="utf-8")  # noqa: SIM115
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # of its workers, as in a process that no server has forked
    sys.argv = ["pretrain_tape.py", *flags]
    if fault is not None:
        module, _, function = fault.partition(":")
        getattr(importlib.import_module(module), function)(rank)
    sys.exit(run_cli(main))


def compute(function: Callable[[int, str], Any], folder: Path, world: int = 2, seconds: float = 240.0) -> list[Any]:
    """Run ``function(rank, folder)`` in several processes, which may rendezvous through files; returns the results.

    Args:
        function: function of a test module; must not return tensors, whose memory a process shares until it ends.
        folder: an empty directory.
        world: number of processes.
        seconds: timeout of each process.

    Raises:
        AssertionError: a process failed (the message has its traceback) or returned no result.
    """
    channels = [CONTEXT.Pipe(duplex=False) for _ in range(world)]
    processes = [CONTEXT.Process(target=_answer, args=(function, r, str(folder), channels[r][1])) for r in range(world)]
    for process in processes:
        process.start()
    answers: list[Any] = []
    try:
        for receiver, _ in channels:
            assert receiver.poll(seconds), f"no answer within {seconds} s"
            good, answer = receiver.recv()
            assert good, answer
            answers.append(answer)
    finally:
        for process in processes:
            if len(answers) < world:
                process.kill()
            process.join()
    return answers


def _answer(function: Callable[[int, str], Any], rank: int, folder: str, channel: Any) -> None:
    torch.set_num_threads(1)
    try:
        channel.send((True, function(rank, folder)))
    except Exception:  # raised in the parent
        channel.send((False, traceback.format_exc()))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0, pause: float = 0.02) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it does not hold within the timeout.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(pause)
