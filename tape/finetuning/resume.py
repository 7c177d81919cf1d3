"""What a resumed run takes over from the run it goes on with.

Options that are given again hold; the others are those of the run's ``args.json``. A default in the place of the run's
own batch size, seed or rate would change the schedule and the order of the proteins in silence (defect 9).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tape.configs import CONFIG_NAME
from tape.errors import CheckpointError, ConfigError
from tape.io.json_files import read_json_object

from .run_directory import ARGUMENTS_NAME, LATEST_NAME, saved_epoch

# Not among them: where this process computes and logs, and what names the run itself.
_TAKEN_OVER = (
    "data_dir",
    "log_dir",
    "tokenizer",
    "model_config_file",
    "contact_head",
    "pooling",
    "freeze",
    "lora",
    "max_length",
    "max_tokens",
    "length",
    "eval_splits",
    "seed",
    "fp16",
    "bf16",
    "learning_rate",
    "head_learning_rate",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "num_log_iter",
    "eval_freq",
    "save_freq",
    "patience",
)


# What the optimizer's state and the saved weights belong to: a run keeps them to its end.
_FIXED = ("contact_head", "pooling", "freeze", "lora", "head_learning_rate")


def resumed_epoch(path: Path) -> Path:
    """The saved epoch to go on after: ``path`` itself, or of a run's directory the latest.

    Raises:
        CheckpointError: it is no saved epoch in the directory of a run.
    """
    source = saved_epoch(path, (LATEST_NAME,))
    if not source.is_dir():
        raise CheckpointError(f"{path}: no such directory, so training can't be resumed from it")
    arguments = source.resolve().parent / ARGUMENTS_NAME
    if not arguments.is_file():
        raise CheckpointError(
            f"{path}: neither a run with saved epochs nor one of them ({arguments} is missing), so training can't be"
            " resumed from it; start a new run from this model without --resume_from_checkpoint"
        )
    return source


def take_over(args: argparse.Namespace) -> tuple[argparse.Namespace, list[str]]:
    """Complete the options of a resumed run by those it was started with.

    Args:
        args: parsed, with ``given_options``, the names of those that were on the command line.

    Returns:
        The options, and a line for each given one that differs from the run's own.

    Raises:
        CheckpointError: ``--from_pretrained`` names no run, or its ``args.json`` is damaged.
        ConfigError: the run trains another model or task, or other parts of it.
    """
    epoch = resumed_epoch(Path(args.from_pretrained)).resolve()
    file = epoch.parent / ARGUMENTS_NAME
    saved = read_json_object(file)
    for name in ("model_type", "task"):
        if saved.get(name, getattr(args, name)) != getattr(args, name):
            raise ConfigError(f"{file}: the run's {name} is {saved[name]}, not {getattr(args, name)}")
    given = set(args.given_options)
    _check_fixed(args, given & saved.keys(), saved, epoch)
    for choice in ({"fp16", "bf16"}, {"freeze", "lora"}):
        if given & choice:
            given |= choice
    values = dict(vars(args))
    changes = []
    for name in sorted(_own_options(saved) & values.keys()):
        if name not in given:
            values[name] = saved[name]
        elif values[name] != saved[name]:
            changes.append(f"--{name} is {values[name]} from now on; so far it was {saved[name]}")
    config = dict(saved.get("config") or {})
    changes += [f"--config {name}={value} from now on" for name, value in args.config if config.get(name) != value]
    values["config"] = [*config.items(), *args.config]
    values["given_options"] = sorted({*args.given_options, *saved.get("given_options", ())})
    return argparse.Namespace(**values), changes


def _check_fixed(args: argparse.Namespace, names: set[str], saved: dict[str, Any], epoch: Path) -> None:
    """Refuse other values of what is fixed; what the run was not given, its model's configuration tells."""
    for name in (name for name in _FIXED if name in names):
        own = _model_value(epoch, name) if saved[name] is None else saved[name]
        if getattr(args, name) != own:
            before = f"with --{name} {saved[name]}" if saved[name] else f"without --{name}"
            raise ConfigError(
                f"{epoch.parent / ARGUMENTS_NAME}: the run was started {before}, which can't be changed when it is gone"
                " on with"
            )


def _model_value(epoch: Path, name: str) -> Any:
    file = epoch / CONFIG_NAME
    return read_json_object(file).get(name) if file.is_file() else None


def _own_options(saved: dict[str, Any]) -> set[str]:
    """Names to take over. A length of the warm-up that was worked out from the run's steps is worked out anew."""
    names = set(_TAKEN_OVER) & saved.keys()
    if "warmup_steps" not in saved.get("given_options", ("warmup_steps",)):
        names.discard("warmup_steps")
    return names
