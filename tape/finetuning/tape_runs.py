"""Runs of tape-proteins 0.5 and of ProteinLM, which are recognized by the names of their files::

    tape-proteins 0.5    RUN/args.json, RUN/{config.json,pytorch_model.bin,checkpoint.bin}
    ProteinLM            RUN/args.json, RUN/EPOCH/{config.json,pytorch_model.bin,checkpoint.bin}

:mod:`tape.finetuning.tape_state` reads their ``checkpoint.bin``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tape.configs import CONFIG_NAME
from tape.errors import CheckpointError
from tape.io.checksums import SUMS_NAME
from tape.io.digits import natural_number
from tape.io.run_layout import ARGUMENTS_NAME, LATEST_NAME

_WEIGHTS, _OTHER_WEIGHTS = "pytorch_model.bin", "model.safetensors"
_FILES = (CONFIG_NAME, _WEIGHTS, "checkpoint.bin")
_MODEL_FILES = (*_FILES, _OTHER_WEIGHTS)
_OUR_FILES = (SUMS_NAME, "provenance.json", "vocabulary.json")  # in each of our saved epochs
WEIGHT_DECAY = 0.01  # of tape-proteins 0.5, which has no option for it; the default of --weight_decay in ProteinLM


@dataclass(frozen=True)
class TapeRun:
    """A saved state of a run of another program.

    Attributes:
        program: name of the program.
        model: directory with ``config.json``, ``pytorch_model.bin`` and ``checkpoint.bin``.
        arguments: ``args.json`` of the run.
    """

    program: str
    model: Path
    arguments: Path


def find_tape_run(path: Path) -> TapeRun | None:
    """The state of another program's run at ``path``, a run or one of its saved epochs; of a run, the latest epoch.

    Returns:
        None if there is none, as for runs of this project.
    """
    own, parent = path / ARGUMENTS_NAME, path.resolve().parent / ARGUMENTS_NAME
    if _is_saved_state(path):
        if own.is_file():
            return TapeRun("tape-proteins 0.5", path, own)
        return TapeRun("ProteinLM", path, parent) if parent.is_file() else None
    if not own.is_file() or (path / LATEST_NAME).is_file():
        return None
    epochs = {natural_number(child.name): child for child in path.iterdir() if _is_saved_state(child)}
    latest = max((number for number in epochs if number is not None), default=None)
    return None if latest is None else TapeRun("ProteinLM", epochs[latest], own)


def check_weights_file(model: Path, program: str) -> None:
    """Check that the weights are in ``pytorch_model.bin`` only, whose order is that of the optimizer's state.

    Args:
        model: directory of a saved state.
        program: the program that saved it, for messages.

    Raises:
        CheckpointError: ``model.safetensors`` is there, too, from which models are loaded; or ``pytorch_model.bin`` is
            missing. Names it.
    """
    other = model / _OTHER_WEIGHTS
    if not (model / _WEIGHTS).is_file():
        raise CheckpointError(
            f"{model / _WEIGHTS}: missing, whose order of weights is that of the optimizer's state that {program} saved"
        )
    if other.is_file():
        raise CheckpointError(
            f"{other}: beside the {_WEIGHTS} that {program} saved, so the weights and their order are not certain;"
            f" move {_OTHER_WEIGHTS} to another directory"
        )


def missing_files(path: Path) -> list[Path]:
    """The files that the model of another program's run at ``path`` lacks; of ProteinLM's, that of the latest epoch.

    Returns:
        Nothing if the run has no model, or if the model is complete or of this project.
    """
    if not (path / ARGUMENTS_NAME).is_file():
        return []
    numbers = {child: natural_number(child.name) for child in path.iterdir() if model_files(child)}
    epochs = sorted((number, child) for child, number in numbers.items() if number is not None)
    model = path if model_files(path) or not epochs else epochs[-1][1]
    if not model_files(model) or _has_our_files(model):
        return []
    return [model / name for name in _FILES if not (model / name).is_file()]


def model_files(path: Path) -> list[str]:
    """Names of a model's files at the top level of a run; runs of tape-proteins 0.5 have them there, ours never."""
    return [name for name in _MODEL_FILES if (path / name).is_file()]


def _is_saved_state(path: Path) -> bool:
    return all((path / name).is_file() for name in _FILES) and not _has_our_files(path)


def _has_our_files(path: Path) -> bool:
    return any((path / name).is_file() for name in _OUR_FILES)
