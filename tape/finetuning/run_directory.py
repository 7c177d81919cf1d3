"""The directory of a training run: names, log, history and the pointers that say which saved epoch to take.

OUTPUT_DIR/TASK_MODEL_SUFFIX/
    args.json        all arguments of the run, resolved
    log              what was logged
    metrics.jsonl    a record an epoch: {"epoch", "step", "learning_rate", "seconds", "train": {}, "valid": {} or null}
    latest.json      {"epoch", "directory", "metric", "value"} of the last saved epoch
    best.json        the same of the saved epoch with the lowest validation loss
    0/ 1/ ...        one model directory a saved epoch, with checkpoint.bin (see tape.finetuning.checkpoint)
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ConfigError
from tape.io.atomic import atomic_write, write_json
from tape.io.json_files import read_json_lines, read_json_object

LOG_FORMAT = "%(asctime)s - %(levelname)s - %(name)s -   %(message)s"
DATE_FORMAT = "%y/%m/%d %H:%M:%S"

ARGUMENTS_NAME = "args.json"
HISTORY_NAME = "metrics.jsonl"
LATEST_NAME = "latest.json"
BEST_NAME = "best.json"
SEED_PREFIX = "seed_"  # of the directories of one run's seeds, below the run's

logger = logging.getLogger(__name__)


def experiment_name(task: str, model_type: str, time_or_name: str = "time", exp_name: str | None = None) -> str:
    """``TASK_MODEL_SUFFIX``; the suffix is the name given, or UTC time and six random digits for ``time``."""
    if exp_name is not None:
        return exp_name
    if time_or_name != "time":
        return f"{task}_{model_type}_{time_or_name}"
    # SystemRandom: two runs with one --seed, started in one second, must not share a directory
    now = datetime.now(timezone.utc).strftime("%y-%m-%d-%H-%M-%S")
    return f"{task}_{model_type}_{now}_{random.SystemRandom().randrange(10**6):06d}"


@dataclass(frozen=True)
class RunDirectory:
    """One run's directory; see the module's text for what it holds."""

    path: Path

    @classmethod
    def create(cls, path: Path, overwrite: bool = False) -> RunDirectory:
        """Make the directory of a new run. One whose run ended before it saved anything is taken over.

        Raises:
            ConfigError: it holds saved epochs and ``overwrite`` is False, or something other than a run, or is a file.
        """
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file, so no run's directory can have its name; choose another")
        if path.is_dir() and any(path.iterdir()):
            if not (path / ARGUMENTS_NAME).is_file():
                raise ConfigError(f"{path} is not empty and holds no run; choose another name")
            if not overwrite and any(child.name.isdigit() for child in path.iterdir()):
                raise ConfigError(
                    f"{path} holds saved epochs already. Choose another --time_or_name or --exp_name, go on with it"
                    " by --resume_from_checkpoint, or start it anew with --overwrite"
                )
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def epoch_directory(self, epoch: int) -> Path:
        return self.path / str(epoch)

    def write_arguments(self, arguments: dict[str, Any]) -> None:
        write_json(self.path / ARGUMENTS_NAME, arguments)

    def add_history(self, record: dict[str, Any]) -> None:
        """Append one epoch's record."""
        with (self.path / HISTORY_NAME).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, sort_keys=True) + "\n")

    def saved_after(self, epoch: int) -> list[int]:
        """Saved epochs after ``epoch``, ascending."""
        names = [child.name for child in self.path.iterdir() if child.is_dir() and child.name.isdigit()]
        return sorted(int(name) for name in names if int(name) > epoch)

    def forget_after(self, epoch: int) -> None:
        """Drop what was recorded and saved after ``epoch``, and say so: a resumed run writes it anew."""
        history = self.path / HISTORY_NAME
        saved = self.saved_after(epoch)
        if saved:
            logger.warning("%s: saved epochs %s are dropped", self.path, ", ".join(map(str, saved)))
        if history.is_file():
            records = read_history(self.path)
            kept = [record for record in records if record["epoch"] <= epoch]
            if len(kept) < len(records):
                logger.warning("%s: the last %d records are dropped", history, len(records) - len(kept))
            with atomic_write(history, "w") as stream:
                stream.writelines(json.dumps(record, sort_keys=True) + "\n" for record in kept)
        for name in (BEST_NAME, LATEST_NAME):
            pointer = self.path / name
            if pointer.is_file() and read_json_object(pointer).get("epoch", -1) > epoch:
                pointer.unlink()
        for number in saved:
            shutil.rmtree(self.epoch_directory(number))

    def point_to(self, name: str, epoch: int, metric: str, value: float | None) -> None:
        """Write ``latest.json`` or ``best.json``; last, when the epoch's directory is whole."""
        write_json(self.path / name, {"epoch": epoch, "directory": str(epoch), "metric": metric, "value": value})


def read_history(path: Path) -> list[dict[str, Any]]:
    """Records of a run's ``metrics.jsonl``, oldest first.

    Raises:
        CheckpointError: missing or damaged.
    """
    return read_json_lines(path / HISTORY_NAME)


def saved_epoch(path: Path, pointers: tuple[str, ...] = (BEST_NAME, LATEST_NAME)) -> Path:
    """The model directory that ``path`` means: itself, or for a run's directory what the first pointer there names.

    Raises:
        CheckpointError: a pointer is damaged or names a directory that is gone, or there is a run for each seed.
    """
    for name in pointers:
        file = path / name
        if not file.is_file():
            continue
        pointer = read_json_object(file)
        if "directory" not in pointer:
            raise CheckpointError(f"{file}: damaged, it names no directory")
        directory = path / str(pointer["directory"])
        if not directory.is_dir():
            raise CheckpointError(f"{file}: names {directory}, which is not there")
        return directory
    seeds = sorted(child.name for child in path.glob(f"{SEED_PREFIX}*") if child.is_dir())
    if seeds:
        raise CheckpointError(f"{path}: holds a run for each seed; give one of them: {', '.join(seeds)}")
    return path


@contextmanager
def _handling(handler: logging.Handler) -> Iterator[None]:
    """``handler`` on the root logger inside the block."""
    root = logging.getLogger()
    handler.setFormatter(logging.Formatter(LOG_FORMAT, DATE_FORMAT))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


@contextmanager
def logging_to_terminal(level: int) -> Iterator[None]:
    """Log to stderr, from ``level`` on, inside the block."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(level)
    try:
        with _handling(logging.StreamHandler(sys.stderr)):
            yield
    finally:
        root.setLevel(before)


def logging_to_file(file: Path) -> AbstractContextManager[None]:
    """Log to ``file`` too (appended to) inside the block."""
    return _handling(logging.FileHandler(file, encoding="utf-8"))
