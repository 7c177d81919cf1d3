"""The command ``proteinlm``: one sub-command for each program of this project.

``proteinlm pretrain ...`` is the same program as ``pretrain/pretrain_tape.py ...`` in a clone, with the same options.
Modules are imported when their sub-command runs, inside :func:`tape.errors.run_cli`, so that Ctrl-C during the imports
ends it as at any later time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tape import installation  # noqa: F401 - first, since the next import fails in a mixed installation
from tape.errors import ConfigError, did_you_mean, quoted, run_cli


@dataclass(frozen=True)
class Command:
    """One sub-command.

    Attributes:
        summary: what it does, for the list of commands.
        target: ``module:function`` that runs it; it reads ``sys.argv``.
        parser: ``module:function`` that returns its parser. Importing the module takes a fraction of a second.
    """

    summary: str
    target: str
    parser: str

    def run(self) -> object:
        """Run it with the words of ``sys.argv``, or print its help without importing torch."""
        if {"-h", "--help"} & set(sys.argv[1:]):
            self.make_parser().print_help()
            return 0
        return _load(self.target)()

    def make_parser(self) -> argparse.ArgumentParser:
        """Its parser."""
        parser: argparse.ArgumentParser = _load(self.parser)()
        return parser


COMMANDS = {
    "quickstart": Command(
        "every step below on an embedded sample, to one table of results",
        "proteinlm.workflow.quickstart:main",
        "proteinlm.workflow.quickstart:make_parser",
    ),
    "download": Command(
        "download TAPE's published data sets",
        "proteinlm.data.download_data:main",
        "proteinlm.data.download_data:make_parser",
    ),
    "prepare": Command(
        "protein files to training data",
        "proteinlm.data.prepare_data:main",
        "proteinlm.data.prepare_data:make_parser",
    ),
    "preprocess": Command(
        "sequence files to a corpus for pretraining",
        "pretrain.tools.preprocess_data:main",
        "pretrain.tools.preprocess_data:make_parser",
    ),
    "pretrain": Command(
        "pretrain a model; in several processes with torchrun --no-python proteinlm pretrain",
        "pretrain.pretrain_tape:main",
        "pretrain.config.flags:make_parser",
    ),
    "convert": Command(
        "convert and verify checkpoints",
        "converter.megatron-converter:main",
        "converter.megatron-converter:make_parser",
    ),
    "train": Command("finetune a model on a task", "tape.main:run_train", "tape.cli.train:create_train_parser"),
    "train-distributed": Command(
        "the same in several processes", "tape.main:run_train_distributed", "tape.cli.train:create_distributed_parser"
    ),
    "eval": Command(
        "evaluate a finetuned model on a split", "tape.main:run_eval", "tape.cli.evaluate:create_eval_parser"
    ),
    "predict": Command(
        "predict for the proteins of a file",
        "tape.cli.predict:run_predict",
        "tape.cli.predict:create_predict_parser",
    ),
    "embed": Command("embeddings of proteins", "tape.main:run_embed", "tape.cli.embed:create_embed_parser"),
    "score": Command("scores of variants", "tape.cli.score:run_score", "tape.cli.score:create_score_parser"),
    "contacts": Command(
        "contacts from attention maps", "tape.cli.contacts:run_contacts", "tape.cli.contacts:create_contacts_parser"
    ),
    "leakage": Command(
        "relatives of a test split in the training data",
        "tape.cli.leakage:run_leakage",
        "tape.cli.leakage:create_leakage_parser",
    ),
    "groups": Command(
        "families of the proteins of a test split, for intervals over them",
        "tape.cli.groups:run_groups",
        "tape.cli.groups:create_groups_parser",
    ),
    "report": Command("report of several runs", "tape.report.command:main", "tape.report.command:make_parser"),
    "compare": Command("paired comparison of two runs", "tape.report.compare:main", "tape.report.compare:make_parser"),
    "reproduce": Command(
        "the table of downstream results at several scales",
        "proteinlm.workflow.reproduce:main",
        "proteinlm.workflow.reproduce:make_parser",
    ),
    "model-card": Command(
        "model card of a pretrained model",
        "proteinlm.workflow.model_card:main",
        "proteinlm.workflow.model_card:make_parser",
    ),
    "compare-losses": Command(
        "losses of parallel layouts side by side",
        "proteinlm.workflow.compare_losses:main",
        "proteinlm.workflow.compare_losses:make_parser",
    ),
    "measure-iterations": Command(
        "iterations of pretraining in a number of minutes",
        "proteinlm.workflow.measure_iterations:main",
        "proteinlm.workflow.measure_iterations:make_parser",
    ),
}


def _load(place: str) -> Callable[[], Any]:
    module, _, function = place.partition(":")
    loaded: Callable[[], Any] = getattr(import_module(module), function)
    return loaded


def run_command(name: str) -> int:
    """Run a sub-command as a program of its own, with the words of ``sys.argv``; returns the exit code."""
    return run_cli(lambda: COMMANDS[name].run())


def main() -> int:
    """``proteinlm COMMAND ...``; returns the exit code, see :func:`tape.errors.run_cli`."""
    return run_cli(_run)


def _run() -> object:
    words = sys.argv[1:]
    if words and not words[0].startswith("-"):
        command = COMMANDS.get(words[0])
        if command is None:
            _parser().error(
                f"unknown command {quoted(words[0])}; --help lists them{did_you_mean([words[0]], COMMANDS)}"
            )
        sys.argv = [f"proteinlm {words[0]}", *words[1:]]
        return command.run()
    options = _parser().parse_args(words)
    if options.print_completion:
        print(completion(options.print_completion))
        return 0
    _parser().print_help()
    return 2  # as argparse ends without a required argument


def _parser() -> argparse.ArgumentParser:
    from tape.cli.parser import ArgumentParser

    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    parser = ArgumentParser(
        prog="proteinlm",
        usage="proteinlm COMMAND ...\n       proteinlm COMMAND --help",
        description="Pretrain protein language models, and finetune, evaluate and use them.",
        epilog="\n".join(["commands:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "tcsh"),
        metavar="SHELL",
        help="print the completion script of bash, zsh or tcsh, and exit (needs shtab)",
    )
    return parser


def completion(shell: str) -> str:
    """The completion script of all sub-commands and their options.

    Args:
        shell: ``bash``, ``zsh`` or ``tcsh``.

    Raises:
        ConfigError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise ConfigError(
            "--print-completion needs shtab: pip install shtab, or install with the extra completion"
        ) from None
    from tape.cli.parser import ArgumentParser

    parser = ArgumentParser("proteinlm")
    subparsers = parser.add_subparsers()
    for name, command in COMMANDS.items():
        own: Any = command.make_parser()
        for action in own._actions:
            if action.type is not None and action.type in _path_types():
                action.complete = shtab.FILE
        subparsers.add_parser(name, parents=[own], add_help=False, help=command.summary)
    return str(shtab.complete(parser, shell))


def _path_types() -> tuple[Any, ...]:
    from pathlib import Path

    return Path, os.fspath
