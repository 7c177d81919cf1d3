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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, ConfigError, quoted
from tape.io.atomic import atomic_write, write_json
from tape.io.json_files import read_json_lines, read_json_object
from tape.io.run_layout import ARGUMENTS_NAME, BEST_NAME, LATEST_NAME, write_pointer

HISTORY_NAME = "metrics.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run; the module's docstring lists its content."""

    path: Path

    @classmethod
    def create(cls, path: Path, overwrite: bool = False) -> RunDirectory:
        """Create the directory of a new run. The directory of a run that saved no epoch is replaced.

        Raises:
            ConfigError: it holds saved epochs and ``overwrite`` is False, or is not the directory of a run.
        """
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file, so no run's directory can have its name; choose another")
        if path.is_dir() and any(path.iterdir()):
            if not (path / ARGUMENTS_NAME).is_file():
                raise ConfigError(f"{path} is not empty and holds no run; choose another name")
            if not overwrite and any(child.name.isdigit() for child in path.iterdir()):
                raise ConfigError(
                    f"{path} holds saved epochs already. Choose another --time_or_name or --exp_name, resume it"
                    " with --resume_from_checkpoint, or replace it with --overwrite"
                )
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def epoch_directory(self, epoch: int) -> Path:
        return self.path / str(epoch)

    def write_arguments(self, arguments: dict[str, Any]) -> None:
        write_json(self.path / ARGUMENTS_NAME, arguments)

    def add_history(self, record: dict[str, Any]) -> None:
        """Append an epoch's record to ``metrics.jsonl``."""
        with (self.path / HISTORY_NAME).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, sort_keys=True) + "\n")

    def saved_after(self, epoch: int) -> list[int]:
        """Numbers of the epochs saved after ``epoch``, ascending."""
        names = [child.name for child in self.path.iterdir() if child.is_dir() and child.name.isdigit()]
        return sorted(int(name) for name in names if int(name) > epoch)

    def drop_after(self, epoch: int) -> None:
        """Delete records and saved epochs after ``epoch``, which a resumed run writes again; logs what is dropped."""
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
            file = self.path / name
            if file.is_file() and _epoch_in(file) > epoch:
                file.unlink()
        for number in saved:
            shutil.rmtree(self.epoch_directory(number))

    def write_pointer(self, name: str, epoch: int, metric: str, value: float | None) -> None:
        """Write ``latest.json`` or ``best.json``, when the epoch's directory is complete."""
        write_pointer(self.path, name, epoch, metric, value)


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
