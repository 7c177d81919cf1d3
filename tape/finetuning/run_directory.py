"""The directory of a training run: its name, history and saved epochs.

OUTPUT_DIR/TASK_MODEL_SUFFIX/
    args.json        all arguments of the run, with its resolved batch size and warm-up
    log              log messages
    metrics.jsonl    a record per epoch: {"epoch", "step", "learning_rate", "seconds", "train": {}, "valid": {} or null}
    latest.json      the last saved epoch, see tape.io.run_layout
    best.json        the saved epoch with the lowest validation loss
    0/ 1/ ...        a model directory per saved epoch, with checkpoint.bin (see tape.finetuning.checkpoint)
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ConfigError, quoted
from tape.io.atomic import atomic_write, remove_leftovers, write_json
from tape.io.json_files import read_json_lines, read_json_object
from tape.io.output import check_replaceable, output_errors
from tape.io.run_layout import (
    ARGUMENTS_NAME,
    BEST_NAME,
    LATEST_NAME,
    is_epoch_file,
    resolve_model_directory,
    write_pointer,
)
from tape.runtime.distributed import DistributedContext, run_on_main_rank
from tape.runtime.run_lock import lock_beside, run_lock

from .config import OutputConfig

HISTORY_NAME = "metrics.jsonl"
LOG_NAME = "log"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run; the module's docstring lists its content."""

    path: Path

    @classmethod
    def create(cls, path: Path, overwrite: bool = False) -> RunDirectory:
        """Create the directory of a new run, or empty that of an earlier run that saved no epoch.

        Files that a run does not write, such as notes, remain.

        Args:
            path: the directory; no other process writes there.
            overwrite: remove the files of an earlier run that saved epochs, too.

        Raises:
            ConfigError: it holds saved epochs and ``overwrite`` is False, is not the directory of a run, or a saved
                epoch contains files that no command has written there.
        """
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file, so no run's directory can have its name; choose another")
        remove_leftovers(path)  # of a run that was killed before it wrote its arguments, for example
        if path.is_dir() and any(path.iterdir()):
            if not (path / ARGUMENTS_NAME).is_file():
                raise ConfigError(f"{path} is not empty and holds no run; choose another name")
            if not overwrite and any(child.name.isdigit() for child in path.iterdir()):
                raise ConfigError(
                    f"{path} holds saved epochs already. Choose another --time_or_name or --exp_name, resume it"
                    " with --resume_from_checkpoint, or replace it with --overwrite"
                )
            cls(path)._remove_run()
        with output_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @classmethod
    def resume(cls, path: Path, epoch: int, overwrite: bool = False) -> RunDirectory:
        """The directory of a run to resume after ``epoch``. Epochs saved after it are dropped only with ``overwrite``.

        An epoch that ``latest.json`` does not name yet was interrupted while it was saved, and may be dropped.

        Raises:
            ConfigError: there are later epochs, and ``overwrite`` is False.
        """
        run = cls(path)
        later = run.saved_after(epoch)
        if later and not overwrite and resolve_model_directory(path, (LATEST_NAME,)) != run.epoch_directory(epoch):
            raise ConfigError(
                f"{path}: resuming after epoch {epoch} drops its saved epochs {', '.join(map(str, later))}; give"
                f" --overwrite to drop them, or --from_pretrained {path} to resume after the last of them"
            )
        return run

    def _remove_run(self) -> None:
        """Remove the files of a run except its arguments, which are replaced: they mark it as the directory of one."""
        saved = self.saved_after(-1)
        self._check_epochs(saved)
        for number in saved:
            shutil.rmtree(self.epoch_directory(number))
        for name in (HISTORY_NAME, LATEST_NAME, BEST_NAME, LOG_NAME):
            (self.path / name).unlink(missing_ok=True)

    def _check_epochs(self, numbers: list[int]) -> None:
        """Check that saved epochs can be removed: no user has stored other files in one of them.

        Raises:
            ConfigError: there are such files.
        """
        for number in numbers:
            check_replaceable(self.epoch_directory(number), is_epoch_file, "--overwrite:")

    def epoch_directory(self, epoch: int) -> Path:
        return self.path / str(epoch)

    def write_arguments(self, arguments: dict[str, Any]) -> None:
        write_json(self.path / ARGUMENTS_NAME, arguments)

    def add_history(self, record: dict[str, Any]) -> None:
        """Append an epoch's record to ``metrics.jsonl``."""
        file = self.path / HISTORY_NAME
        with output_errors(file), file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, sort_keys=True) + "\n")

    def saved_after(self, epoch: int) -> list[int]:
        """Numbers of the epochs saved after ``epoch``, ascending."""
        names = [child.name for child in self.path.iterdir() if child.is_dir() and child.name.isdigit()]
        return sorted(int(name) for name in names if int(name) > epoch)

    def drop_after(self, epoch: int) -> None:
        """Delete records and saved epochs after ``epoch``, which a resumed run writes again; logs what is dropped."""
        saved = self.saved_after(epoch)
        self._check_epochs(saved)
        history = self.path / HISTORY_NAME
        records = read_history(self.path) if history.is_file() else []
        pointers = [self.path / name for name in (BEST_NAME, LATEST_NAME) if (self.path / name).is_file()]
        later = [pointer for pointer in pointers if _epoch_in(pointer) > epoch]
        if saved:
            logger.warning("%s: saved epochs %s are dropped", self.path, ", ".join(map(str, saved)))
        kept = [record for record in records if record["epoch"] <= epoch]
        if len(kept) < len(records):
            logger.warning("%s: the last %d records are dropped", history, len(records) - len(kept))
        if history.is_file():
            with atomic_write(history, "w") as stream:
                stream.writelines(json.dumps(record, sort_keys=True) + "\n" for record in kept)
        for pointer in later:
            pointer.unlink()
        for number in saved:
            shutil.rmtree(self.epoch_directory(number))

    def write_pointer(self, name: str, epoch: int, metric: str, value: float | None) -> None:
        """Write ``latest.json`` or ``best.json``, when the epoch's directory is complete."""
        write_pointer(self.path, name, epoch, metric, value)


@contextmanager
def open_run_directory(
    path: Path, output: OutputConfig, resumed_epoch: int | None, context: DistributedContext
) -> Iterator[RunDirectory]:
    """The directory of a run, with ``args.json``, inside the block. Rank 0 locks it, and creates a new one.

    Args:
        path: directory of the new run, or of the run to resume.
        output: the run's arguments, and whether saved epochs may be dropped.
        resumed_epoch: epoch after which the run is resumed; None: a new run.
        context: the ranks that train together.

    Raises:
        ConfigError: another process writes to the directory, or see :meth:`RunDirectory.create` and
            :meth:`RunDirectory.resume`.
    """
    with ExitStack() as stack:

        def lock_and_create() -> None:
            stack.enter_context(run_lock(lock_beside(path), path, "choose another --exp_name or --time_or_name"))
            if resumed_epoch is None:
                run = RunDirectory.create(path, output.overwrite)
            else:
                run = RunDirectory.resume(path, resumed_epoch, output.overwrite)
            run.write_arguments(dict(output.arguments))

        run_on_main_rank(lock_and_create, context)
        yield RunDirectory(path)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Records of a run's ``metrics.jsonl``, oldest first.

    Raises:
        CheckpointError: missing or damaged.
    """
    return read_json_lines(path / HISTORY_NAME, integers=["epoch"])


def _epoch_in(pointer: Path) -> int:
    """The epoch that ``latest.json`` or ``best.json`` names."""
    epoch = read_json_object(pointer).get("epoch", -1)
    if not isinstance(epoch, int):
        raise CheckpointError(f"{pointer}: damaged, 'epoch' must be an integer, not {quoted(epoch)}")
    return epoch
