"""Faults to inject into the processes of `ranks.py`: functions that take the rank, passed as
`tests.support.fault_injection:NAME`."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pretrain import trace
from pretrain.checkpointing import saving
from pretrain.train import evaluation
from pretrain.train import step as train_step
from pretrain.train import trainer as training
from tape.errors import DataError
from tape.io.writing import remove_leftovers
from tape.models.modeling_bert import ProteinBertFFN


def _at_step(number: int, action: Callable[[training.Trainer], None]) -> None:
    step = training.Trainer.train_step

    def faulty(self: training.Trainer, iteration: int, *others: Any) -> train_step.StepResult:
        if iteration == number:
            action(self)
        return step(self, iteration, *others)

    training.Trainer.train_step = faulty  # type: ignore[method-assign]


def error_on_rank_1(rank: int) -> None:
    """A user error on one rank."""

    def fail(trainer: training.Trainer) -> None:
        with trace.span("a faulty step"):
            raise DataError("corpus.bin: record 17 is damaged")

    if rank == 1:
        _at_step(4, fail)


def error_while_slowly_saving_on_rank_1(rank: int) -> None:
    """The checkpoint of iteration 2 takes 7 s, and rank 1 fails in the meantime."""
    write = saving._write_tensors

    def slow(*arguments: Any) -> Any:
        time.sleep(7.0)
        return write(*arguments)

    saving._write_tensors = slow
    error_on_rank_1(rank)


def bug_on_rank_1(rank: int) -> None:
    """A bug of the program on one rank."""

    def fail(trainer: training.Trainer) -> None:
        with trace.span("a faulty step"):
            raise KeyError("nowhere")

    if rank == 1:
        _at_step(4, fail)


def _hang(*arguments: object) -> None:
    """The main thread never returns; the other threads of the process run as usual."""
    while True:
        time.sleep(0.01)


def _last_layer(trainer: training.Trainer | evaluation.Evaluator) -> ProteinBertFFN:
    return [module for module in trainer.model.modules() if isinstance(module, ProteinBertFFN)][-1]


def _stuck_in_forward(trainer: training.Trainer | evaluation.Evaluator) -> None:
    _last_layer(trainer).register_forward_pre_hook(_hang)


def _stuck_in_backward(trainer: training.Trainer) -> None:
    _last_layer(trainer).register_full_backward_pre_hook(_hang)


def stuck_in_forward_on_rank_0(rank: int) -> None:
    if rank == 0:
        _at_step(4, _stuck_in_forward)


def stuck_in_forward_on_rank_1(rank: int) -> None:
    if rank == 1:
        _at_step(4, _stuck_in_forward)


def stuck_in_backward_on_rank_1(rank: int) -> None:
    if rank == 1:
        _at_step(4, _stuck_in_backward)


def stuck_in_first_step_on_rank_1(rank: int) -> None:
    if rank == 1:
        _at_step(1, _stuck_in_forward)


def stuck_in_evaluation_on_rank_1(rank: int) -> None:
    """In the second evaluation; the first one is allowed to take long."""
    evaluate, seen = evaluation.Evaluator.evaluate, iter(range(1, 1000))

    def faulty(self: evaluation.Evaluator, *arguments: Any) -> Any:
        if next(seen) == 2:
            _stuck_in_forward(self)
        return evaluate(self, *arguments)

    if rank == 1:
        evaluation.Evaluator.evaluate = faulty  # type: ignore[method-assign]


def slow_then_stuck_in_evaluation_on_rank_1(rank: int) -> None:
    """A step of 6 s on rank 0 and 8 s on rank 1, which uses the CPU in the forward pass, followed by a hang."""

    def compute(*arguments: object) -> None:
        end = time.monotonic() + (8.0 if rank == 1 else 6.0)
        while time.monotonic() < end:
            pass

    def slow(trainer: training.Trainer) -> None:
        handle = _last_layer(trainer).register_forward_pre_hook(lambda *arguments: (handle.remove(), compute())[1])

    _at_step(4, slow)
    stuck_in_evaluation_on_rank_1(rank)


def _die(*arguments: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _on_save(number: int, patch: Callable[[], None]) -> None:
    """Apply a patch before the n-th checkpoint is written."""
    write, seen = saving._temporary_directory, iter(range(1, 1000))

    def counting(*arguments: Any) -> AbstractContextManager[Path]:
        if next(seen) == number:
            patch()
        return write(*arguments)

    saving._temporary_directory = counting


def _also_on_save(action: Callable[[Path], None]) -> None:
    """Pass the checkpoint's temporary directory to ``action`` before this rank writes its tensors there."""
    write = saving._write_tensors

    def acting(directory: Path, *arguments: Any) -> Any:
        action(directory)
        return write(directory, *arguments)

    saving._write_tensors = acting


def leftovers_removed_during_each_save(rank: int) -> None:
    """As a second run does at its start, if it does not see the lock of the first."""
    _also_on_save(lambda directory: remove_leftovers(directory.parent.parent))


def rank_0_killed_in_the_second_save(rank: int) -> None:
    if rank == 0:
        _also_on_save(lambda directory: _die() if directory.name == "iter_0000004" else None)


def killed_before_the_tensors(rank: int) -> None:
    _on_save(2, lambda: setattr(saving, "_write_tensors", _die))


def killed_among_the_tensors(rank: int) -> None:
    def dies(*arguments: Any) -> Iterator[None]:
        files = saving._write_tensors(*arguments)
        path = next(arguments[0].glob("*.distcp"))
        os.truncate(path, path.stat().st_size // 2)
        _die()
        return files

    write = saving._write_tensors

    def patch() -> None:
        def faulty(*arguments: Any) -> Any:
            saving._write_tensors = write
            return dies(*arguments)

        saving._write_tensors = faulty

    _on_save(2, patch)


def killed_before_the_rename(rank: int) -> None:
    _on_save(2, lambda: setattr(saving, "replace_directory", _die))


def killed_before_the_pointer(rank: int) -> None:
    _on_save(2, lambda: setattr(saving, "atomic_write", _die))


def killed_among_the_old(rank: int) -> None:
    """While older checkpoints are being deleted."""
    _on_save(2, lambda: setattr(shutil, "rmtree", _die))
