"""Compatibility: tape-proteins 0.5's ``tape.training``: the commands with options as keyword arguments, and runners.

New code calls :mod:`tape.main`, or :func:`tape.finetuning.finetune.finetune` with a configuration.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import main
from .cli.embed import create_embed_parser
from .cli.evaluate import create_eval_parser
from .cli.keywords import words_of
from .cli.parser import ArgumentParser
from .cli.train import create_distributed_parser, create_train_parser
from .compatibility.runners import BackwardRunner, ForwardRunner, run_eval_epoch, run_train_epoch, run_valid_epoch

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
    return main.run_train(_namespace(create_train_parser(), (model_type, task), options))


def run_eval(model_type: str, task: str, from_pretrained: str | os.PathLike[str], **options: Any) -> dict[str, float]:
    """Evaluate a finetuned model; see :func:`tape.main.run_eval`."""
    return main.run_eval(_namespace(create_eval_parser(), (model_type, task, from_pretrained), options))


def run_embed(
    model_type: str,
    data_file: str | os.PathLike[str],
    out_file: str | os.PathLike[str],
    from_pretrained: str | os.PathLike[str],
    **options: Any,
) -> Path:
    """Write embeddings; see :func:`tape.main.run_embed`."""
    positions = (model_type, data_file, out_file, from_pretrained)
    return main.run_embed(_namespace(create_embed_parser(), positions, options))


def run_train_distributed(model_type: str, task: str, **options: Any) -> None:
    """Train in several processes; see :func:`tape.main.run_train_distributed`."""
    main.run_train_distributed(_namespace(create_distributed_parser(), (model_type, task), options))


def _namespace(
    parser: ArgumentParser, positions: Iterable[str | os.PathLike[str]], options: Mapping[str, Any]
) -> argparse.Namespace:
    """Parse the options as those of the command line are parsed; no values, such as ``metrics=()``, are the default.

    Raises:
        ConfigError: the command has no such option, or a value can't be used.
    """
    parser.raises_errors = True
    given = {name: value for name, value in options.items() if not isinstance(value, list | tuple) or value}
    namespace: argparse.Namespace = parser.parse_args([*map(str, positions), *words_of(parser, given)])
    return namespace
