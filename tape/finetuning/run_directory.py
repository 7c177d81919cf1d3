"""The directory of a training run: its name, history and saved epochs.

OUTPUT_DIR/TASK_MODEL_SUFFIX/
    args.json        all arguments of the run, with its resolved batch size and warm-up
    log              log messages
    curves.svg       the loss and the metrics by epoch, drawn at the end (see tape.report.training_curves)
    metrics.jsonl    a record per epoch: {"epoch", "step", "learning_rate", "seconds", "train": {}, "valid": {} or null}
    table.jsonl      of a user's table in Python: the table, which is here before the run, see tape.own_table
    splits.tsv       of a user's table: the split of each protein, see tape.tables.splits
    splits.json      where these splits are from
    latest.json      the last saved epoch, see tape.io.run_layout
    best.json        the saved epoch with the lowest validation loss
    0/ 1/ ...        a model directory per saved epoch, with checkpoint.bin (see tape.finetuning.checkpoint)
    step_N/          the same, after step N of a run that a stop signal interrupted, until the next epoch is saved
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tape.errors import CheckpointError, ConfigError, quoted
from tape.io.digits import natural_number
from tape.io.json_files import read_json_lines, read_json_object
from tape.io.run_layout import (
    ARGUMENTS_NAME,
    BEST_NAME,
    LATEST_NAME,
    RESULTS_NAME,
    STEP_PREFIX,
    TABLE_NAME,
    is_epoch_file,
    resolve_model_directory,
    write_pointer,
)
from tape.io.writing import atomic_write, check_replaceable, output_errors, remove_leftovers, write_json
from tape.report.training_curves import CURVES_NAME, draw_finetuning
from tape.runtime.run_lock import lock_beside, run_lock
from tape.tables.splits import ORIGIN_NAME, SPLITS_NAME

from .config import OutputConfig
from .tape_runs import model_files

if TYPE_CHECKING:
    from tape.runtime.distributed import DistributedContext

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
            ConfigError: it holds saved epochs and ``overwrite`` is False, is not the directory of a run, has files of a
                model at its top level, or a saved epoch contains files that no command has written there.
        """
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file, so no run's directory can have its name; choose another")
        # Not all files of a run of tape-proteins 0.5 need be left: without checkpoint.bin it is a trained model, too.
        found = model_files(path) if (path / ARGUMENTS_NAME).is_file() else []
        if found:
            raise ConfigError(
                f"{path} is a run with its model ({', '.join(found)} beside {ARGUMENTS_NAME}), as of tape-proteins 0.5,"
                " which --overwrite does not replace; choose another --time_or_name, --exp_name or --output_dir"
            )
        remove_leftovers(path, exclusive=True)  # of a run that was killed before it wrote its arguments, for example
        if path.is_dir() and any(child.name != TABLE_NAME for child in path.iterdir()):
            if not (path / ARGUMENTS_NAME).is_file():
                raise ConfigError(f"{path} is not empty and holds no run; choose another name")
            run = cls(path)
            if not overwrite and run.has_saved_states():
                raise ConfigError(
                    f"{path} holds saved epochs already. Choose another --time_or_name or --exp_name, resume it"
                    " with --resume_from_checkpoint, or replace it with --overwrite"
                )
            run._remove_run()
        with output_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @classmethod
    def resume(cls, source: Path, epoch: int, overwrite: bool = False) -> RunDirectory:
        """The directory of a run to resume. What was saved later is dropped only with ``overwrite``.

        What ``latest.json`` does not name yet was being saved when the run was killed, and may be dropped.

        Args:
            source: the saved epoch, or the state of an interrupted run, to resume from.
            epoch: the last complete epoch in it.
            overwrite: drop what was saved later.

        Raises:
            ConfigError: something was saved later, and ``overwrite`` is False.
        """
        path, run = source.parent, cls(source.parent)
        later = run._saved_later(source, epoch)
        if later and not overwrite and resolve_model_directory(path, (LATEST_NAME,)) != source:
            names = ", ".join(directory.name for directory in later)
            raise ConfigError(
                f"{path}: resuming after epoch {epoch} drops its saved epochs {names}; give"
                f" --overwrite to drop them, or --from_pretrained {path} to resume after the last of them"
            )
        return run

    def has_saved_states(self) -> bool:
        """Whether there is a saved epoch, or the state of an interrupted run."""
        return bool(self.saved_after(-1) or self.interrupted_states())

    def interrupted_states(self) -> list[Path]:
        """The directories ``step_N``."""
        return sorted(child for child in self.path.glob(f"{STEP_PREFIX}*") if child.is_dir())

    def _saved_later(self, source: Path, epoch: int) -> list[Path]:
        """What a run that resumes from ``source`` saves again."""
        later = [self.epoch_directory(number) for number in self.saved_after(epoch)]
        return [*later, *(state for state in self.interrupted_states() if state != source)]

    def _remove_run(self) -> None:
        """Remove the files of a run except its arguments, which are replaced: they mark it as the directory of one."""
        saved = [*map(self.epoch_directory, self.saved_after(-1)), *self.interrupted_states()]
        self._check_epochs(saved)
        for directory in saved:
            shutil.rmtree(directory)
        written = (HISTORY_NAME, LATEST_NAME, BEST_NAME, LOG_NAME, RESULTS_NAME, CURVES_NAME, SPLITS_NAME, ORIGIN_NAME)
        for name in written:
            (self.path / name).unlink(missing_ok=True)

    def _check_epochs(self, directories: list[Path]) -> None:
        """Check that saved epochs can be removed: no user has stored other files in one of them.

        Raises:
            ConfigError: there are such files.
        """
        for directory in directories:
            check_replaceable(directory, is_epoch_file, "--overwrite:")

    def epoch_directory(self, epoch: int) -> Path:
        return self.path / str(epoch)

    def write_arguments(self, arguments: dict[str, Any]) -> None:
        write_json(self.path / ARGUMENTS_NAME, arguments)

    def add_history(self, record: dict[str, Any]) -> None:
        """Append an epoch's record to ``metrics.jsonl``."""
        file = self.path / HISTORY_NAME
        with output_errors(file), file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, sort_keys=True) + "\n")

    def draw_curves(self) -> Path | None:
        """Draw the history; returns the picture, or None if nothing was recorded."""
        history = read_history(self.path) if (self.path / HISTORY_NAME).is_file() else []
        picture = self.path / CURVES_NAME
        return picture if draw_finetuning(history, picture) else None

    def saved_after(self, epoch: int) -> list[int]:
        """Numbers of the epochs saved after ``epoch``, ascending."""
        numbers = (natural_number(child.name) for child in self.path.iterdir() if child.is_dir())
        return sorted(number for number in numbers if number is not None and number > epoch)

    def drop_after(self, source: Path, epoch: int) -> None:
        """Delete records and models saved after ``source``, which a resumed run writes again; logs what is dropped.

        ``latest.json`` names ``source`` before anything is deleted, so that a run that is killed can be resumed.

        Args:
            source: the saved epoch, or the state of an interrupted run, to resume from.
            epoch: the last complete epoch in it.
        """
        later = self._saved_later(source, epoch)
        self._check_epochs(later)
        history = self.path / HISTORY_NAME
        records = read_history(self.path) if history.is_file() else []
        best = self.path / BEST_NAME
        drops_best = best.is_file() and _epoch_in(best) > epoch
        kept = [record for record in records if record["epoch"] <= epoch]
        write_pointer(self.path, LATEST_NAME, epoch, "loss", _validation_loss(kept, epoch), source.name)
        if later:
            names = ", ".join(directory.name for directory in later)
            logger.warning("%s: saved epochs %s are dropped", self.path, names)
        if len(kept) < len(records):
            logger.warning("%s: the last %d records are dropped", history, len(records) - len(kept))
        if history.is_file():
            with atomic_write(history, "w") as stream:
                stream.writelines(json.dumps(record, sort_keys=True) + "\n" for record in kept)
        if drops_best:
            best.unlink()
        for directory in later:
            shutil.rmtree(directory)

    def remove_interrupted_states(self, kept: Path | None = None) -> None:
        """Delete the directories ``step_N`` except ``kept``; ``latest.json`` names none of them."""
        for directory in self.interrupted_states():
            if directory != kept:
                shutil.rmtree(directory)

    def write_pointer(
        self, name: str, epoch: int, metric: str, value: float | None, directory: str | None = None
    ) -> None:
        """Write ``latest.json`` or ``best.json``, when the directory is complete (default: the epoch's)."""
        write_pointer(self.path, name, epoch, metric, value, directory)


@contextmanager
def open_run_directory(
    path: Path, output: OutputConfig, resumed: tuple[Path, int] | None, context: DistributedContext
) -> Iterator[RunDirectory]:
    """The directory of a run, with ``args.json``, inside the block. Rank 0 locks it, and creates a new one.

    Args:
        path: directory of the new run, or of the run to resume.
        output: the run's arguments, and whether saved epochs may be dropped.
        resumed: the model directory inside ``path`` to resume from, and its last complete epoch; None: a new run.
        context: the ranks that train together.

    Raises:
        ConfigError: another process writes to the directory, or see :meth:`RunDirectory.create` and
            :meth:`RunDirectory.resume`.
    """
    from tape.runtime.distributed import run_on_main_rank

    with ExitStack() as stack:

        def lock_and_create() -> None:
            stack.enter_context(run_lock(lock_beside(path), path, "choose another --exp_name or --time_or_name"))
            if resumed is None:
                RunDirectory.create(path, output.overwrite).write_arguments(dict(output.arguments))
            else:  # keeps the options of its epochs until it is known that others follow
                RunDirectory.resume(*resumed, output.overwrite)

        run_on_main_rank(lock_and_create, context)
        yield RunDirectory(path)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Records of a run's ``metrics.jsonl``, oldest first.

    Raises:
        CheckpointError: missing or damaged.
    """
    return read_json_lines(path / HISTORY_NAME, integers=["epoch"])


def _validation_loss(records: list[dict[str, Any]], epoch: int) -> Any:
    """The validation loss in an epoch's record; None without one."""
    for record in records:
        if record["epoch"] == epoch and isinstance(record.get("valid"), dict):
            return record["valid"].get("loss")
    return None


def _epoch_in(pointer: Path) -> int:
    """The epoch that ``latest.json`` or ``best.json`` names."""
    epoch = read_json_object(pointer).get("epoch", -1)
    if not isinstance(epoch, int):
        raise CheckpointError(f"{pointer}: damaged, 'epoch' must be an integer, not {quoted(epoch)}")
    return epoch
