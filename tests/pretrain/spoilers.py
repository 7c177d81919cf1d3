"""What goes wrong in the processes of `ranks.py`: functions of the rank, named as `tests.pretrain.spoilers:NAME`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from pretrain import training
from pretrain.checkpointing import retention, saving
from pretrain.objective import MaskedLanguageModelling
from tape.errors import DataError


def _at_step(number: int, action: Callable[[training.Trainer], None]) -> None:
    step = training.Trainer.step

    def spoiled(self: training.Trainer, iteration: int, micro_batches: Any) -> training.StepResult:
        if iteration == number:
            action(self)
        return step(self, iteration, micro_batches)

    training.Trainer.step = spoiled  # type: ignore[method-assign]


def error_on_rank_1(rank: int) -> None:
    """What a user can mend, on one rank."""

    def fail(trainer: training.Trainer) -> None:
        trainer.operations.at("a spoiled step")
        raise DataError("corpus.bin: record 17 is damaged")

    if rank == 1:
        _at_step(4, fail)


def fault_on_rank_1(rank: int) -> None:
    """A fault of the program, on one rank."""

    def fail(trainer: training.Trainer) -> None:
        trainer.operations.at("a spoiled step")
        raise KeyError("nowhere")

    if rank == 1:
        _at_step(4, fail)


def stuck_on_rank_1(rank: int) -> None:
    """The main thread never comes back, while the process is well otherwise."""

    def hang() -> None:
        while True:
            time.sleep(0.01)

    if rank == 1:
        _at_step(4, lambda trainer: setattr(MaskedLanguageModelling, "forward", lambda *arguments: hang()))


def _die(*arguments: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _on_save(number: int, patch: Callable[[], None]) -> None:
    """Apply a patch before the n-th checkpoint is written."""
    write, seen = saving._temporary_directory, iter(range(1, 1000))

    def counting(*arguments: Any) -> str:
        if next(seen) == number:
            patch()
        return write(*arguments)

    saving._temporary_directory = counting


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
        def spoiled(*arguments: Any) -> Any:
            saving._write_tensors = write
            return dies(*arguments)

        saving._write_tensors = spoiled

    _on_save(2, patch)


def killed_before_the_rename(rank: int) -> None:
    _on_save(2, lambda: setattr(saving, "replace_directory", _die))


def killed_before_the_pointer(rank: int) -> None:
    _on_save(2, lambda: setattr(saving, "atomic_write", _die))


def killed_among_the_old(rank: int) -> None:
    """While older checkpoints are being deleted."""
    _on_save(2, lambda: setattr(retention.shutil, "rmtree", _die))
