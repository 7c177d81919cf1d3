"""Compatibility: tape-proteins 0.5's ``tape.training``: the commands with options as keyword arguments, and runners.

New code calls :mod:`tape.main`, or :func:`tape.finetuning.finetune.finetune` with a configuration.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import main
from .cli.embed import create_embed_parser
from .cli.evaluate import create_eval_parser
from .cli.train import create_distributed_parser, create_train_parser
from .compatibility.runners import BackwardRunner, ForwardRunner, run_eval_epoch, run_train_epoch, run_valid_epoch
from .errors import ConfigError

__all__ = [
    "BackwardRunner",
    "ForwardRunner",
    "run_embed",
    "run_eval",
    "run_eval_epoch",
    "run_train",
    "run_train_distributed",
    "run_train_epoch",
    "run_valid_epoch",
]


def run_train(model_type: str, task: str, **options: Any) -> Path:
    """Train a model on a task; see :func:`tape.main.run_train`."""
    return main.run_train(_namespace(create_train_parser(), model_type=model_type, task=task, **options))


def run_eval(model_type: str, task: str, from_pretrained: str, **options: Any) -> dict[str, float]:
    """Evaluate a finetuned model; see :func:`tape.main.run_eval`."""
    positions = {"model_type": model_type, "task": task, "from_pretrained": from_pretrained}
    return main.run_eval(_namespace(create_eval_parser(), **positions, **options))


def run_embed(model_type: str, data_file: str, out_file: str, from_pretrained: str, **options: Any) -> Path:
    """Write embeddings; see :func:`tape.main.run_embed`."""
    positions = {"data_file": data_file, "out_file": out_file, "from_pretrained": from_pretrained}
    return main.run_embed(_namespace(create_embed_parser(), model_type=model_type, **positions, **options))


def run_train_distributed(model_type: str, task: str, **options: Any) -> None:
    """Train in several processes; see :func:`tape.main.run_train_distributed`."""
    main.run_train_distributed(_namespace(create_distributed_parser(), model_type=model_type, task=task, **options))


def _namespace(parser: argparse.ArgumentParser, **options: Any) -> argparse.Namespace:
    """The parser's defaults with these options.

    Raises:
        ConfigError: the command has no such option.
    """
    defaults = {action.dest: action.default for action in parser._actions if action.dest != "help"}
    unknown = sorted(options.keys() - defaults.keys())
    if unknown:
        raise ConfigError(f"{parser.prog} has no option {', '.join(unknown)}")
    return argparse.Namespace(**{**defaults, **options})
