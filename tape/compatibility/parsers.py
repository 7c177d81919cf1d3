"""TAPE's functions that make the parsers of its commands, from ``tape.main``.

A script adds options of its own to the parser of :func:`create_base_parser`, and passes it on::

    base = create_base_parser()
    base.add_argument("--mine")
    run_train(create_train_parser(base).parse_args())
"""

from __future__ import annotations

import argparse

from tape.cli import embed, evaluate, train
from tape.cli.options import create_base_parser
from tape.cli.parser import ArgumentParser

__all__ = [
    "create_base_parser",
    "create_distributed_parser",
    "create_embed_parser",
    "create_eval_parser",
    "create_train_parser",
]


def create_train_parser(base_parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of ``tape-train``."""
    return train.create_train_parser([base_parser])


def create_eval_parser(base_parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of ``tape-eval``."""
    return evaluate.create_eval_parser([base_parser])


def create_embed_parser(base_parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of ``tape-embed``."""
    return embed.create_embed_parser([base_parser])


def create_distributed_parser(base_parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """``base_parser`` with the launcher's options, to be passed to :func:`create_train_parser`."""
    parser = ArgumentParser(add_help=False, parents=[base_parser])
    train.add_launcher_options(parser)
    return parser
