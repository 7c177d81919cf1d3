"""The commands of TAPE: ``run_train``, ``run_eval``, ``run_embed`` and ``run_train_distributed``.

Each parses its options into a configuration (:mod:`tape.cli`) and runs what it describes. Arguments are a parsed
namespace, the words of a command line, or None for ``sys.argv``. Tasks and models that third parties register in the
same process are known to all of them. For the shell, :mod:`tape.commands` prints their errors as one line.

torch is imported inside the functions, so that ``--help`` and errors in options need no time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .cli.embed import embed_config
from .cli.evaluate import eval_config
from .cli.options import Arguments
from .cli.train import distributed_config, finetune_config
from .compatibility.parsers import (
    create_base_parser,
    create_distributed_parser,
    create_embed_parser,
    create_eval_parser,
    create_train_parser,
)
from .errors import run_cli
from .inference.config import PredictConfig
from .runtime.elastic_launch import launch
from .runtime.process import process_context

if TYPE_CHECKING:
    from .finetuning.config import FinetuneConfig

__all__ = [
    "create_base_parser",
    "create_distributed_parser",
    "create_embed_parser",
    "create_eval_parser",
    "create_train_parser",
    "run_embed",
    "run_eval",
    "run_train",
    "run_train_distributed",
]


def run_train(arguments: Arguments = None) -> Path:
    """``tape-train``: train a model on a task.

    Returns:
        The run's directory; with ``--force_save``, the directory of the saved model.

    Raises:
        ProteinLMError: options, data or model can't be used.
    """
    return _finetune(finetune_config(arguments))


def _finetune(config: FinetuneConfig) -> Path:
    from .finetuning.finetune import finetune

    with process_context(config.process) as context:
        return finetune(config, context)


def run_eval(arguments: Arguments = None) -> dict[str, float]:
    """``tape-eval``: evaluate a finetuned model on a split, or predict for the proteins of a file.

    Returns:
        The metrics named by ``--metrics`` (default: all metrics of the task), as in ``results.pkl``; with
        ``--predict``, the number of ``proteins``.

    Raises:
        ProteinLMError: options, data or model can't be used.
    """
    config = eval_config(arguments)
    from .evaluation.split import evaluate_split
    from .inference.run import predict_file

    with process_context(config.process) as context:
        return predict_file(config, context) if isinstance(config, PredictConfig) else evaluate_split(config, context)


def run_embed(arguments: Arguments = None) -> Path:
    """``tape-embed``: write the embeddings of a file's proteins; returns the file written.

    Raises:
        ProteinLMError: options, data or model can't be used.
    """
    config = embed_config(arguments)
    from .inference.run import embed_file

    with process_context(config.process) as context:
        return embed_file(config, context)


def run_train_distributed(arguments: Arguments = None) -> None:
    """``tape-train-distributed``: ``run_train`` in ``--nproc_per_node`` processes on each of ``--nnodes`` machines.

    Raises:
        ProteinLMError: options can't be used, or a process failed.
    """
    config, plan = distributed_config(arguments)
    launch(plan, _finetune_worker, config)


def _finetune_worker(config: FinetuneConfig) -> None:
    sys.exit(run_cli(lambda: _finetune(config)))


if __name__ == "__main__":
    sys.exit(run_cli(run_train))
