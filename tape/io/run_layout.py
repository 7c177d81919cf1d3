"""The name of a run directory, and its pointers ``best.json`` and ``latest.json`` to a saved epoch.

A pointer is an object {"epoch", "directory", "metric", "value"}; ``directory`` is the epoch's model directory inside
the run. Of a run that a stop signal interrupted, ``latest.json`` names the directory ``step_N``, with the state after
the run's step N; ``epoch`` is then the last complete epoch, or -1.
"""

from __future__ import annotations

import random
import re
from datetime import datetime, timezone
from pathlib import Path, PurePath

from tape.errors import CheckpointError, ConfigError, quoted

from .json_files import read_json_object
from .writing import write_json

ARGUMENTS_NAME = "args.json"
BEST_NAME = "best.json"
LATEST_NAME = "latest.json"
RESULTS_NAME = "results.pkl"
REGRESSION_NAME = "contact_regression.json"
TABLE_NAME = "table.jsonl"  # the table of a run that was started in Python
_LONGEST_NAME = 200  # bytes, of the 255 that file systems allow; task, model and suffixes of temporary files are added
_DIRECTORY_NAME = re.compile(r"[\w-][\w.-]{0,200}")
_RESULTS = re.compile(r"results\.pkl|results_.+\.pkl|eval_.+\.json")  # of an evaluation
_PREDICTIONS = re.compile(r"predictions_.+")
_EPOCH_FILES = frozenset(
    {
        "SHA256SUMS",
        "checkpoint.bin",
        "config.json",
        REGRESSION_NAME,
        "model.safetensors",
        "provenance.json",
        "pytorch_model.bin",
        "vocabulary.json",
    }
)
STEP_PREFIX = "step_"  # prefix of the directory of an interrupted run's state
SEED_PREFIX = "seed_"  # prefix of the runs' directories with --seeds, inside the experiment's directory


def experiment_name(task: str, model_type: str, time_or_name: str = "time", exp_name: str | None = None) -> str:
    """``TASK_MODEL_SUFFIX``. The suffix is ``time_or_name``, or UTC time and six random digits for "time".

    Raises:
        ConfigError: the directory of that name would not be inside ``--output_dir``.
    """
    check_run_names(time_or_name, exp_name)
    if exp_name is not None:
        return exp_name
    if time_or_name != "time":
        return f"{task}_{model_type}_{time_or_name}"
    # SystemRandom, since two runs with the same --seed may be started in the same second
    now = datetime.now(timezone.utc).strftime("%y-%m-%d-%H-%M-%S")
    return f"{task}_{model_type}_{now}_{random.SystemRandom().randrange(10**6):06d}"


def check_run_names(time_or_name: str, exp_name: str | None) -> None:
    """Check that ``--time_or_name`` and ``--exp_name`` name a directory inside ``--output_dir``.

    Raises:
        ConfigError: a name is empty, too long or absolute, contains ``..``, or can't be that of a directory.
    """
    for option, name in (("--time_or_name", time_or_name), ("--exp_name", exp_name)):
        if name is None:
            continue
        path = PurePath(name)
        if any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in path.parts):
            raise ConfigError(
                f"{option} {quoted(name)}: the name of a run has at most {_LONGEST_NAME} bytes; choose a shorter one"
            )
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise ConfigError(
                f"{option} {quoted(name)}: the directory is made inside --output_dir, so its name can't be empty or"
                " absolute or contain '..'; choose another name, or another --output_dir"
            )


def is_results_file(name: str) -> bool:
    """Whether a file of this name is one that an evaluation writes."""
    return _RESULTS.fullmatch(name) is not None


def is_epoch_file(name: str) -> bool:
    """Whether a file of this name in a saved epoch is one that training, evaluation or prediction writes."""
    return name in _EPOCH_FILES or is_results_file(name) or _PREDICTIONS.fullmatch(name) is not None


def write_pointer(
    run: Path, name: str, epoch: int, metric: str, value: float | None, directory: str | None = None
) -> None:
    """Write ``best.json`` or ``latest.json``. To be called when the directory is complete.

    Args:
        run: directory of the run.
        name: name of the pointer.
        epoch: last complete epoch in the saved model.
        metric, value: its validation metric.
        directory: name of the saved model's directory; None: that of the epoch.
    """
    content = {"epoch": epoch, "directory": directory or str(epoch), "metric": metric, "value": value}
    write_json(run / name, content)


def resolve_model_directory(path: Path, pointers: tuple[str, ...] = (BEST_NAME, LATEST_NAME)) -> Path:
    """The model directory for a path: of a run, the saved epoch in the first pointer that exists; else the path itself.

    Raises:
        CheckpointError: a pointer is damaged or names a missing directory, or ``path`` holds one run per seed.
    """
    for pointer_name in pointers:
        file = path / pointer_name
        if not file.is_file():
            continue
        pointer = read_json_object(file)
        name = pointer.get("directory")
        if not isinstance(name, str) or not _DIRECTORY_NAME.fullmatch(name):
            raise CheckpointError(f"{file}: damaged, 'directory' must be the name of a directory, not {quoted(name)}")
        directory = path / name
        if not directory.is_dir():
            raise CheckpointError(f"{file}: names {directory}, which does not exist")
        return directory
    seeds = sorted(child.name for child in path.glob(f"{SEED_PREFIX}*") if child.is_dir())
    if seeds:
        raise CheckpointError(f"{path}: holds one run per seed; give one of them: {', '.join(seeds)}")
    return path
